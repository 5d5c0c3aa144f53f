"""Describes the numbers of an explanation in words; every statement stands for a number of the record."""

import numpy as np

from stattn_jax.explain.explanation import ExplanationData

# The strongest interval extends while a segment's evidence is at least this share of the strongest segment's.
_STRONG = 0.5
# Evidence (logit) that two decimals show as zero is not mentioned.
_VISIBLE = 0.005


def sentence(explanation: ExplanationData, c: int) -> str:
    """Returns sentences on the evidence for class `c`.

    They name the class, its probability, the contributions of visual and audio evidence, where each is most in favour
    of the class, what is most against it, and the attention weight of the null cells.
    """
    label, shares = explanation.classes[c], explanation.shares(explanation.classes[c])
    contributions_t = {'visual': explanation.visual[c].sum(axis=(1, 2)), 'audio': explanation.audio[c]}
    zero_point = 'an average clip' if explanation.mean_scores.any() else 'the bias'
    each = [f'{name} evidence {signed(share)}' for name, share in zip(contributions_t, shares.values(), strict=True)]
    each = [text for text, has in zip(each, explanation.modalities, strict=True) if has]
    each[0] = each[0].replace('evidence', 'evidence contributes')
    parts = [
        f'{label}, {percent(explanation.probabilities[c])}.',
        f'Relative to {zero_point}, the {" and the ".join(each)} to the logit.',
    ]
    details = {'visual': f' (strongest cell: {_strongest(explanation, c)})', 'audio': ''}
    strongest = [
        f'{name} at {_strongest_seconds(explanation, values)}{details[name]}'
        for name, values in contributions_t.items()
        if values.max() >= _VISIBLE
    ]
    if strongest:
        parts.append(f'Strongest evidence for it: {"; ".join(strongest)}.')
    name, values = min(contributions_t.items(), key=lambda item: item[1].min())
    if values.min() <= -_VISIBLE:
        t = int(values.argmin())
        parts.append(
            f'Strongest evidence against it: {name} at {seconds(explanation, t, t + 1)} ({signed(values[t])}).'
        )
    if explanation.modalities.all():
        parts.append(f'{null_share(explanation.null[explanation.valid].mean())}.')
    return ' '.join(parts)


def null_share(weight: float) -> str:
    """Describes the attention weight (0..1) of the null cell."""
    return f'{percent(weight)} of the spatial attention is on the null cell (no visible source)'


def place(explanation: ExplanationData, i: int, j: int) -> str:
    """Returns where the cell in row i and column j lies in the source frame, by thirds: 'upper left', 'centre', ..."""
    _, h, w = explanation.geometry['grid']
    to = explanation.geometry['to_source']
    x = to['x_offset'] + to['x_scale'] * (j + 0.5) / w
    y = to['y_offset'] + to['y_scale'] * (i + 0.5) / h
    names = ('upper', '', 'lower')[min(int(3 * y), 2)], ('left', '', 'right')[min(int(3 * x), 2)]
    return ' '.join(filter(None, names)) or 'centre'


def seconds(explanation: ExplanationData, first: int, stop: int) -> str:
    """Returns the segments first..stop (half-open) as seconds of the clip: '3 to 5 s'."""
    length = explanation.geometry['segment_seconds']
    return f'{first * length:g} to {stop * length:g} s'


def signed(value: float) -> str:
    """Formats a number with its sign and two decimals, with a typographic minus sign."""
    return f'{round(float(value), 2) + 0.0:+.2f}'.replace('-', '\N{MINUS SIGN}')


def percent(value: float) -> str:
    """Formats a share as a whole percentage; values between 0 and 1 never round to 0% or 100%."""
    if 0 < value < 0.01:
        return 'below 1%'
    if 0.99 < value < 1:
        return 'above 99%'
    return f'{value:.0%}'


def _strongest_seconds(explanation, values_t):
    """Returns the seconds of the segments around the strongest one that are at least half as strong."""
    strong = values_t >= _STRONG * values_t.max()
    first = last = int(np.argmax(values_t))
    while first > 0 and strong[first - 1]:
        first -= 1
    while last + 1 < len(strong) and strong[last + 1]:
        last += 1
    return seconds(explanation, first, last + 1)


def _strongest(explanation, c):
    t, i, j = map(int, np.unravel_index(np.argmax(explanation.visual[c]), explanation.visual[c].shape))
    return f'{place(explanation, i, j)} at {seconds(explanation, t, t + 1)}'

"""Describes the numbers of an explanation in words; every statement stands for a number of the record."""

import numpy as np

from stattn_jax.explain.explanation import ExplanationData

# The strongest stretch extends while a segment's evidence is at least this share of the strongest segment's.
_STRETCH = 0.5
# Evidence (logit) that two decimals show as zero is not mentioned.
_VISIBLE = 0.005


def sentence(explanation: ExplanationData, c: int) -> str:
    """Returns sentences on the evidence for class `c`.

    They name the class, its probability, the contributions of picture and sound, where each is most in favour of the
    class, what is most against it, and the attention weight of the null cells.
    """
    shares = explanation.shares(explanation.classes[c])
    terms = {'picture': explanation.visual[c].sum(axis=(1, 2)), 'sound': explanation.audio[c]}
    against = 'an average clip' if explanation.mean_scores.any() else 'the bias'
    parts = [
        f'{explanation.classes[c]}, {percent(explanation.probabilities[c])}.',
        f'Against {against}, the picture adds {signed(shares["picture"])} and the sound {signed(shares["sound"])} to '
        'the logit.',
    ]
    where = {'picture': f', strongest cell {_strongest(explanation, c)}', 'sound': ''}
    best = [
        f'the {name} at {_stretch(explanation, values)}{where[name]}'
        for name, values in terms.items()
        if values.max() >= _VISIBLE
    ]
    if best:
        parts.append(f'Most for it: {"; ".join(best)}.')
    name, values = min(terms.items(), key=lambda item: item[1].min())
    if values.min() <= -_VISIBLE:
        t = int(values.argmin())
        parts.append(f'Most against it: the {name} at {seconds(explanation, t, t + 1)} ({signed(values[t])}).')
    null = explanation.null[explanation.valid].mean()
    parts.append(f'In space, {percent(null)} of the attention finds nothing visible.')
    return ' '.join(parts)


def place(explanation: ExplanationData, i: int, j: int) -> str:
    """Returns where the cell in row i and column j lies in the source frame, by thirds: 'upper left', 'centre', ..."""
    _, h, w = explanation.geometry['grid']
    to = explanation.geometry['to_source']
    x = to['x_offset'] + to['x_scale'] * (j + 0.5) / w
    y = to['y_offset'] + to['y_scale'] * (i + 0.5) / h
    words = ('upper', '', 'lower')[min(int(3 * y), 2)], ('left', '', 'right')[min(int(3 * x), 2)]
    return ' '.join(filter(None, words)) or 'centre'


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


def _stretch(explanation, values_t):
    """Returns the seconds of the segments around the strongest one that are at least half as strong."""
    strong = values_t >= _STRETCH * values_t.max()
    first = last = int(np.argmax(values_t))
    while first > 0 and strong[first - 1]:
        first -= 1
    while last + 1 < len(strong) and strong[last + 1]:
        last += 1
    return seconds(explanation, first, last + 1)


def _strongest(explanation, c):
    t, i, j = np.unravel_index(np.argmax(explanation.visual[c]), explanation.visual[c].shape)
    return f'{place(explanation, i, j)} at {seconds(explanation, t, t + 1)}'

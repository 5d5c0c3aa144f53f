"""Describes the numbers of an explanation in words; every statement stands for a number of the record."""

from typing import Any

import numpy as np

from stattn_jax.colours import NEGLIGIBLE
from stattn_jax.explain.explanation import ExplanationData, cell_centre

# The strongest interval extends while a segment's evidence is at least this share of the strongest segment's.
_STRONG = 0.5
# Evidence (logit) that two decimals show as zero is not mentioned.
_VISIBLE = 0.005
_LACKS = (
    'There is no {0} stream here, so the network answers by the {1} alone: the {0} is not replaced by {2}, it has no '
    'weight and adds nothing to the logit.'
)
# The notes of a clip (data/media.py) as sentences for a reader, the most important ones first.
_NOTES = {
    'no_sound': _LACKS.format('sound', 'picture', 'silence'),
    'no_picture': _LACKS.format('picture', 'sound', 'black frames'),
    'silent': (
        'The sound track is silent: it never exceeds \N{MINUS SIGN}80 dB of full scale. The network takes this silence '
        'as evidence like any other sound.'
    ),
    'joined': 'The file consists of several files joined together; only the first of them is read.',
    'short': 'The clip is short: segments without data are ignored.',
    'damaged': 'Parts of the file could not be decoded: the previous frame, or silence, is used instead.',
}


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
        null = null_share(explanation.null[explanation.valid].mean())
        parts.append(f'{null[0].upper()}{null[1:]}.')
    return ' '.join(parts)


def notices(explanation: ExplanationData, c: int) -> list[str]:
    """Returns notices that a reader needs before the evidence for class `c`, most important first; mostly none.

    The clip lacks a modality, is unlike the training clips, or silent, or only its beginning was read; one modality
    contributes next to nothing; other notes of the clip.
    """
    notes = explanation.media['notes']
    texts = [text for note, text in _NOTES.items() if note in notes]
    texts += [f'Of several streams, {note} is used.' for note in notes if note not in _NOTES and note != 'long']
    lacking = [] if explanation.modalities.all() else [texts.pop(0) + _usual_share(explanation)]
    texts = [*lacking, _unlike_training(explanation), *texts, _cut(explanation), _negligible(explanation, c)]
    return [text for text in texts if text]


def _usual_share(explanation):
    """Says which share of the usual evidence is left to a clip that lacks a modality."""
    usual = explanation.usual_weights
    if not usual:
        return ''
    lacking, left = ('sound', 'picture')[:: 1 if explanation.modalities[0] else -1]
    return (
        f' Over the clips of split {usual["split"]!r}, the {lacking} has {percent(usual[lacking])} of the attention '
        f'weight in time, so that this leaves {percent(usual[left])} of the usual evidence.'
    )


def _cut(explanation):
    """Says which part of a longer video is explained."""
    media = explanation.media
    if 'long' not in media['notes']:
        return None
    first, last = (f'{media[name]:.4g}' for name in ('start', 'end'))
    part = f'the first {last} s' if media['start'] == 0 else f'{first} to {last} s'
    whole = f' of {media["file_duration"]:.4g} s' if media.get('file_duration') else ''
    return f'Only {part}{whole} are explained; a timeline (--long) shows the whole video.'


def _unlike_training(explanation):
    measured = explanation.trust.get('training_distance', {})
    names = {'visual': 'picture', 'audio': 'audio'}
    over = [name for name in names if name in measured and measured[name]['distance'] > measured[name]['threshold']]
    if not over:
        return None
    text = ' and the '.join(names[name] for name in over)
    distances, limits = (
        ' and '.join(f'{measured[name][key]:.2f}' for name in over) for key in ('distance', 'threshold')
    )
    several = len(over) > 1
    return (
        f'The {text} of this clip {"are" if several else "is"} unlike the training clips '
        f'({"distances" if several else "distance"} {distances}, {"limits" if several else "limit"} {limits}; at most '
        f'{percent(measured["false_alarm_rate"])} of clips like those get this notice). The prediction may mean '
        'nothing.'
    )


def _negligible(explanation, c):
    """Says that a modality's largest sum over a segment is below the share NEGLIGIBLE of the other's."""
    largest = {
        'visual': np.abs(explanation.visual[c].sum(axis=(1, 2))).max(),
        'audio': np.abs(explanation.audio[c]).max(),
    }
    (weak, low), (strong, high) = sorted(largest.items(), key=lambda item: item[1])
    if low >= NEGLIGIBLE * high or not explanation.modalities.all():
        return None
    return (
        f'The {weak} evidence contributes next to nothing to {explanation.classes[c]}: at most {low:.2f} in a segment, '
        f'the {strong} evidence up to {high:.2f}.'
    )


def null_share(weight: float) -> str:
    """Describes the attention weight (0..1) of the null cell."""
    return f'{percent(weight)} of the spatial attention is on the null cell (no visible source)'


def place(explanation: ExplanationData, i: int, j: int) -> str:
    """Returns where the cell in row i and column j lies in the source frame, by thirds: 'upper left', 'centre', ..."""
    x, y = cell_centre(explanation.geometry, i, j)
    names = ('upper', '', 'lower')[min(int(3 * y), 2)], ('left', '', 'right')[min(int(3 * x), 2)]
    return ' '.join(filter(None, names)) or 'centre'


def seconds(explanation: ExplanationData, first: int, stop: int) -> str:
    """Returns the segments first..stop (half-open) as seconds of the clip: '3 to 5 s'."""
    length = explanation.geometry['segment_seconds']
    return f'{first * length:g} to {stop * length:g} s'


def clock_time(seconds: float) -> str:
    """Formats seconds of a long video as minutes and seconds, '1:05' or '1:05.5', with hours where there are any."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    second = f'{rest // 10:02d}' + (f'.{rest % 10}' if rest % 10 else '')
    return f'{minutes // 60}:{minutes % 60:02d}:{second}' if minutes >= 60 else f'{minutes}:{second}'


def clock_span(part: dict[str, Any]) -> str:
    """Formats `start` and `end` (s) of a part of a long video: '1:05 to 1:15'."""
    return f'{clock_time(part["start"])} to {clock_time(part["end"])}'


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

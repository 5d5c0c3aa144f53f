"""Writes an explanation per segment for other programs: a CSV table, and WebVTT cues for players and screen readers.

ExplanationData (explanation.py) defines the numbers.
"""

import csv
import html
import os

from stattn_jax import files
from stattn_jax.explain import sentences
from stattn_jax.explain.explanation import ExplanationData, cell_centre, strongest_cell

# The table has columns for this many of the best classes.
_CLASSES = 5


def write_csv(explanation: ExplanationData, path: str | os.PathLike) -> None:
    """Writes one row per segment: seconds, attention weights, and the terms of the five best classes.

    - segment; start, end: seconds of the file; valid: 1 or 0; nothing_visible: attention weight of the null cell
    - `picture: CLASS`, `sound: CLASS`: sums of the terms in units of the logit, seven significant digits
    - cell_row, cell_column: the cell with the largest positive term for the best class, counted from 0 at the top left,
      and cell_x, cell_y, its centre in 0..1 of the source frame; empty where no term is positive
    """
    classes = [explanation.class_index(row['label']) for row in explanation.top(_CLASSES)]
    seconds, first = explanation.geometry['segment_seconds'], explanation.media['start']
    header = ['segment', 'start', 'end', 'valid', 'nothing_visible']
    header += ['cell_row', 'cell_column', 'cell_x', 'cell_y']
    header += [f'{modality}: {explanation.classes[c]}' for c in classes for modality in ('picture', 'sound')]
    with files.whole_text(path) as file:
        table = csv.writer(file)
        table.writerow(header)
        for t, valid in enumerate(explanation.valid):
            terms = [x for c in classes for x in (explanation.visual[c, t].sum(dtype=float), explanation.audio[c, t])]
            numbers = [first + t * seconds, first + (t + 1) * seconds]
            row = [t, *map(_number, numbers), int(valid), _number(explanation.null[t])]
            table.writerow(row + _cell(explanation, classes[0], t) + [_number(x) for x in terms])


def write_vtt(explanation: ExplanationData, path: str | os.PathLike) -> None:
    """Writes one WebVTT cue per segment, which describes its visual and audio evidence for the best class.

    Second 0 is the beginning of the explained part, as in the videos that video.py writes.
    """
    c = explanation.class_index()
    seconds = explanation.geometry['segment_seconds']
    title = f'{explanation.classes[c]}, {sentences.percent(explanation.probabilities[c])}'
    blocks = ['WEBVTT', f'NOTE Evidence for and against {_cue_text(title)}, in units of the logit']
    for t in range(len(explanation.valid)):
        times = f'{_stamp(t * seconds)} --> {_stamp((t + 1) * seconds)}'
        blocks.append(f'{t + 1}\n{times}\n{_cue_text(_segment_sentence(explanation, c, t))}')
    files.write_text(path, '\n\n'.join(blocks) + '\n')


def _segment_sentence(explanation: ExplanationData, c: int, t: int) -> str:
    label = explanation.classes[c]
    if not explanation.valid[t]:
        return 'No data in this segment.'
    picture, sound = explanation.visual[c, t].sum(dtype=float), explanation.audio[c, t]
    strongest = strongest_cell(explanation.visual[c, t : t + 1])
    # A cell whose term would be printed as 0.00 is not mentioned.
    is_shown = strongest is not None and explanation.visual[c, t].max() >= 0.005
    place = f', strongest cell: {sentences.place(explanation, *strongest[1:])}' if is_shown else ''
    visual, audio = f'{_evidence("visual", picture)}{place}', _evidence('audio', sound)
    if explanation.modalities.all():
        return f'{label}: {visual}; {audio}; {sentences.null_share(explanation.null[t])}.'
    return f'{label}: {visual}; no sound.' if explanation.modalities[0] else f'{label}: no picture; {audio}.'


def _evidence(modality: str, term: float) -> str:
    if float(f'{term:.2f}') == 0:
        return f'no {modality} evidence (0.00)'
    return f'{modality} evidence {"for" if term > 0 else "against"} it ({sentences.signed(term)})'


def _cell(explanation: ExplanationData, c: int, t: int) -> list[str]:
    strongest = strongest_cell(explanation.visual[c, t : t + 1])
    if strongest is None:
        return [''] * 4
    _, i, j = strongest
    return [str(i), str(j), *map(_number, cell_centre(explanation.geometry, i, j))]


def _number(value: float) -> str:
    return f'{value:.7g}'


def _cue_text(text: str) -> str:
    """Returns the text as one line that cannot start markup or contain an arrow (WebVTT, section 4.2.2)."""
    return html.escape(' '.join(text.split()), quote=False)


def _stamp(seconds: float) -> str:
    millis = round(seconds * 1000)
    return f'{millis // 3_600_000:02d}:{millis // 60_000 % 60:02d}:{millis // 1000 % 60:02d}.{millis % 1000:03d}'

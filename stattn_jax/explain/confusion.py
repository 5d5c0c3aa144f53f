"""The confusion matrix of the index page, whose cells choose the clips that the page shows (page/index.js)."""

import collections
import html
from collections.abc import Iterable

# With more labels than this, the matrix has those of the most clips; with more than _OPEN, it is folded up at first.
_LABELS, _OPEN = 30, 12
_SHADES = 5


def table(pairs: Iterable[tuple[str, str]]) -> str:
    """Returns the matrix of (true label, predicted class) as HTML, one row per true label; '' without pairs.

    Every count is a button with its pair in data-true and data-predicted.
    """
    counts = collections.Counter(pairs)
    if not counts:
        return ''
    clips: collections.Counter[str] = collections.Counter()
    for pair, count in counts.items():
        for label in set(pair):
            clips[label] += count
    kept = sorted(label for label, _ in clips.most_common(_LABELS))
    head = ''.join(f'<th scope="col"><span>{html.escape(label)}</span></th>' for label in kept)
    rows = '\n'.join(_row(label, kept, counts) for label in kept)
    shown = sum(count for (true, predicted), count in counts.items() if true in kept and predicted in kept)
    note = 'A row is a true label and a column a predicted class; a count shows its clips.'
    if len(clips) > len(kept):
        note += (
            f' The matrix has the {len(kept)} of {len(clips)} labels with the most clips, '
            f'and {shown} of the {counts.total()} labelled clips.'
        )
    return (
        f'<details id="confusion"{" open" if len(kept) <= _OPEN else ""}><summary>Confusion matrix</summary>'
        f'<p class="note">{note}</p>'
        f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
        '</details>'
    )


def _row(true: str, labels: list[str], counts: collections.Counter) -> str:
    most = max(counts[true, predicted] for predicted in labels)
    cells = ''.join(_cell(true, predicted, counts[true, predicted], most) for predicted in labels)
    return f'<tr><th scope="row">{html.escape(true)}</th>{cells}</tr>'


def _cell(true: str, predicted: str, count: int, most: int) -> str:
    if not count:
        return f'<td{" class=right" if true == predicted else ""}></td>'
    name = f'{count} of {true}, predicted as {predicted}'
    kind = 'right' if true == predicted else 'missed'
    return (
        f'<td class="{kind}"><button type="button" aria-pressed="false" class="shade{-(-_SHADES * count // most)}" '
        f'data-true="{html.escape(true)}" data-predicted="{html.escape(predicted)}" '
        f'aria-label="{html.escape(name)}" title="{html.escape(name)}">{count}</button></td>'
    )

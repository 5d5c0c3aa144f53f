"""Writes timeline.html, the page of a long video, and timeline.mp4, the small copy that it plays.

The page shows the classes over time, the evidence of each segment, and links to the windows that are explained. Its
charts and its table are in the document itself; its script (page/timeline_page.js) connects them with the player.
"""

import html
import pathlib
from typing import Any

import numpy as np

from stattn_jax import files
from stattn_jax.data import media
from stattn_jax.explain import index, page, sentences, video
from stattn_jax.explain.long import Timeline

PAGE, CLIP = 'timeline.html', 'timeline.mp4'
_CLASSES = 8
# Pixels of the charts: the height of a class and of the evidence, and the least width of a window.
_LANE, _EVIDENCE, _WIDTH = 30, 64, 5
# The picture of the copy: pixels of its shorter side, and frames per second. A minute takes about 3 MB.
_SIDE, _FPS = 240, 15


def write(timeline: Timeline, source: pathlib.Path, folder: pathlib.Path, pages: dict[int, str]) -> list[str]:
    """Writes the page and the clip into a folder; returns their names.

    `pages` are the addresses of the explained windows, by number. If the clip cannot be written, the page says why.
    """
    problem = ''
    try:
        with files.whole_path(folder / CLIP) as part:
            video.write_web_clip(source, part, timeline.media['start'], timeline.media['end'], _SIDE, _FPS)
    except media.MediaError as error:
        problem = f'The video cannot be played here: {error.detail}.'
    files.write_text(folder / PAGE, render(timeline, pages, problem))
    return [PAGE] if problem else [PAGE, CLIP]


def render(timeline: Timeline, pages: dict[int, str], problem: str = '') -> str:
    """Returns the page as an HTML document that plays CLIP beside it, or says with `problem` why it cannot."""
    span = sentences.clock_span(timeline.media)
    shown = timeline.shown(_CLASSES)
    player = f'<video id="video" src="{CLIP}" controls preload="metadata" aria-label="The whole video"></video>'
    return page.fill(
        'timeline_page.html',
        ('style.css', 'timeline_page.css'),
        ('timeline_page.js',),
        media="'self' file: blob:",
        title=f'{timeline.media["file"]}, {span}',
        summary=_summary(timeline),
        raw_player=f'<p class="note">{html.escape(problem)}</p>' if problem else player,
        raw_names=_names(timeline, shown),
        raw_chart=_chart(timeline, shown, pages),
        raw_table=_table(timeline, pages),
        raw_data=page.json_text(_data(timeline, pages)),
    )


def _summary(timeline: Timeline) -> str:
    windows = [window for window in timeline.windows if window['label'] is not None]
    seconds = windows[0]['end'] - windows[0]['start'] if windows else 0
    text = f'{index.counted(len(timeline.windows), "window")} of {seconds:g} s, one every '
    text += f'{timeline.hop * timeline.segment_seconds:g} s; '
    text += f'the {len(timeline.explanations)} most probable are explained.'
    if timeline.segments_without_data:
        text += f' {timeline.segments_without_data} of {len(timeline.rows)} segments have no video or no audio.'
    return text


def _data(timeline: Timeline, pages: dict[int, str]) -> dict[str, Any]:
    """Returns the data of the script: per window its best classes and its page, per segment its window and evidence."""
    best = np.argsort(-np.nan_to_num(timeline.probabilities), axis=1, kind='stable')[:, :3]
    return {
        'start': timeline.media['start'],
        'seconds': timeline.segment_seconds,
        'hop': timeline.hop,
        'file': timeline.media['file'],
        'windows': [
            {
                'start': window['start'],
                'end': window['end'],
                'page': pages.get(k),
                'best': None
                if window['label'] is None
                else [[timeline.classes[c], float(f'{timeline.probabilities[k, c]:.4g}')] for c in best[k]],
            }
            for k, window in enumerate(timeline.windows)
        ],
        'rows': [[row['window'], row['picture'], row['sound']] for row in timeline.rows],
    }


# ---------------------------------------------------------------------------------------------------------------------
# The chart: one lane for the explained windows, one for each class, one for the evidence, and the axis of time
# ---------------------------------------------------------------------------------------------------------------------


def _names(timeline: Timeline, shown: list[int]) -> str:
    evidence = f'evidence, \N{PLUS-MINUS SIGN}{_largest(timeline):.2g}'
    names = ['explained', *(timeline.classes[c] for c in shown), evidence, 'time']
    kinds = ['explained', *['class'] * len(shown), 'evidence', 'time']
    return ''.join(
        f'<li class="{kind}" title="{html.escape(name)}"><span>{html.escape(name)}</span></li>'
        for name, kind in zip(names, kinds)
    )


def _chart(timeline: Timeline, shown: list[int], pages: dict[int, str]) -> str:
    """Returns the lanes as one SVG, whose places in time are percentages of its width."""
    top = _LANE
    parts = [_explained(timeline, pages), *_grid(timeline, top, _LANE * (1 + len(shown)) + _EVIDENCE)]
    for c in shown:
        parts.append(_lane(timeline, c, top))
        top += _LANE
    parts += [_evidence(timeline, top), *_axis(timeline, top + _EVIDENCE)]
    parts.append(f'<line id="head" class="head" y1="0" y2="{top + _EVIDENCE}" x1="0" x2="0"/>')
    return f'<svg id="chart" width="{_width(timeline)}" height="{top + _EVIDENCE + 22}">{"".join(parts)}</svg>'


def _width(timeline: Timeline) -> int:
    """Returns the least width of the chart in pixels; a window that is narrower scrolls it."""
    return max(280, _WIDTH * len(timeline.windows))


def _percent(segments: float, timeline: Timeline) -> str:
    return f'{100 * segments / len(timeline.rows):.4g}%'


def _explained(timeline: Timeline, pages: dict[int, str]) -> str:
    """Returns a link for each explained window, in rows, so that those that overlap stay visible."""
    total, start, seconds = len(timeline.rows), timeline.media['start'], timeline.segment_seconds
    free: list[float] = []
    links = []
    places = {k: (timeline.windows[k]['start'] - start) / seconds for k in sorted(pages)}
    rows = {}
    for k, begin in places.items():
        row = next((i for i, until in enumerate(free) if until <= begin), len(free))
        free[row : row + 1] = [begin + (timeline.windows[k]['end'] - timeline.windows[k]['start']) / seconds]
        rows[k] = row
    height = (_LANE - 6) / max(1, len(free))
    for k, begin in places.items():
        window = timeline.windows[k]
        length = min(total - begin, (window['end'] - window['start']) / seconds)
        links.append(
            f'<a href="{index.link(pages[k])}" class="window"><title>{sentences.clock_span(window)}: '
            f'{html.escape(window["label"])} {sentences.percent(window["probability"])}</title>'
            f'<rect x="{_percent(begin, timeline)}" width="{_percent(length, timeline)}" '
            f'y="{3 + rows[k] * height:.4g}" height="{max(2, height - 1):.4g}" rx="2"/></a>'
        )
    return ''.join(links)


def _lane(timeline: Timeline, c: int, top: float) -> str:
    """Returns the probability of a class as bars, one for each run of segments of the same window."""
    bars, begin = [], 0
    windows = [row['window'] for row in timeline.rows]
    for g in range(1, len(windows) + 1):
        if g < len(windows) and windows[g] == windows[begin]:
            continue
        if windows[begin] is not None:
            height = (_LANE - 4) * timeline.probabilities[windows[begin], c]
            if height >= 0.3:
                bars.append(
                    f'<rect x="{_percent(begin, timeline)}" width="{_percent(g - begin, timeline)}" '
                    f'y="{top + _LANE - height:.4g}" height="{height:.4g}"/>'
                )
        begin = g
    base = top + _LANE
    return f'<g class="class">{"".join(bars)}<line class="rule" x1="0" x2="100%" y1="{base}" y2="{base}"/></g>'


def _evidence(timeline: Timeline, top: float) -> str:
    """Returns signed bars of each segment, the visual one on the left half and the audio one on the right half."""
    largest = _largest(timeline) or 1
    middle = top + _EVIDENCE / 2
    bars = []
    for g, row in enumerate(timeline.rows):
        if row['window'] is None:
            bars.append(
                f'<rect class="missing" x="{_percent(g, timeline)}" width="{_percent(1, timeline)}" y="{top}" '
                f'height="{_EVIDENCE}"/>'
            )
            continue
        for left, name in ((0.1, 'picture'), (0.5, 'sound')):
            height = abs(row[name]) / largest * (_EVIDENCE / 2 - 4)
            y = middle - height if row[name] > 0 else middle
            bars.append(
                f'<rect class="{name}" x="{_percent(g + left, timeline)}" width="{_percent(0.4, timeline)}" '
                f'y="{y:.4g}" height="{height:.3g}"/>'
            )
    return f'<g>{"".join(bars)}<line class="zero" x1="0" x2="100%" y1="{middle}" y2="{middle}"/></g>'


def _largest(timeline: Timeline) -> float:
    """Returns the largest absolute contribution of a segment, which is the scale of the evidence."""
    values = [row[name] for row in timeline.rows for name in ('picture', 'sound') if row[name] is not None]
    return max(map(abs, values), default=0.0)


def _ticks(timeline: Timeline) -> list[float]:
    """Returns round times (s) of the file within the explained part, without its beginning; more in a wider chart."""
    most = max(7, _width(timeline) // 180)
    length, start = len(timeline.rows) * timeline.segment_seconds, timeline.media['start']
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    step = next((step for step in steps if length / step <= most), 7200)
    first = int(start // step) + 1
    return [step * k for k in range(first, int((start + length * 0.97) // step) + 1)]


def _grid(timeline: Timeline, top: float, bottom: float) -> list[str]:
    return [
        f'<line class="rule" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'
        for x in (_place(time, timeline) for time in _ticks(timeline))
    ]


def _axis(timeline: Timeline, top: float) -> list[str]:
    first = f'<text class="tick" x="0" y="{top + 15}">{sentences.clock_time(timeline.media["start"])}</text>'
    return [first] + [
        f'<text class="tick" x="{_place(time, timeline)}" y="{top + 15}" text-anchor="middle">'
        f'{sentences.clock_time(time)}</text>'
        for time in _ticks(timeline)
    ]


def _place(time: float, timeline: Timeline) -> str:
    return _percent((time - timeline.media['start']) / timeline.segment_seconds, timeline)


# ---------------------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------------------


def _table(timeline: Timeline, pages: dict[int, str]) -> str:
    rows = []
    for k, window in enumerate(timeline.windows):
        span = sentences.clock_span(window)
        time = f'<th scope="row">{span}</th>'
        if window['label'] is None:
            rows.append(f'<tr data-window="{k}">{time}<td class="text" colspan="3">no data</td></tr>')
            continue
        link = f'<a href="{index.link(pages[k])}">explanation of {span}</a>' if k in pages else ''
        rows.append(
            f'<tr data-window="{k}">{time}<td class="text">{html.escape(window["label"])}</td>'
            f'<td>{sentences.percent(window["probability"])}</td><td class="text">{link}</td></tr>'
        )
    return '\n'.join(rows)

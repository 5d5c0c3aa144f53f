"""Compares how two runs explain the same clip: differences of probabilities, and agreement of their maps.

The two networks may have other grids, segments and classes: maps are compared at the same points of the source frame
and of time, and classes by their names.
"""

import dataclasses
import html
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from stattn_jax import files
from stattn_jax.explain import index, page, sentences
from stattn_jax.explain.counterfactuals import correlation
from stattn_jax.explain.explanation import ExplanationData, rounded

PAGE, RECORD = 'comparison.html', 'comparison.json'
SCHEMA = 'stattn_jax.comparison/1'
_BEST = 5
# Points along each side of the source frame at which maps are read.
_POINTS = 56
_FRAME = 240


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of the explanations of one clip by two runs, whose names are `runs`.

    - probabilities: {label, first, second} of the best classes of either run; None where a run does not know the class
    - label: the class whose terms are compared; None if the runs have no class in common
    - attention_correlation: Pearson's correlation of the attention weights over points and time (None where one is
      constant); attention_intersection: the share of the attention on the cells that both place at the same points,
      0..1, mean over time
    - visual_correlation, audio_correlation: Pearson's correlation of the two runs' terms for the label
    """

    runs: tuple[str, str]
    file: str
    probabilities: list[dict[str, Any]]
    label: str | None
    attention_correlation: float | None
    attention_intersection: float
    visual_correlation: float | None
    audio_correlation: float | None

    def sentence(self) -> str:
        """Returns both predictions and the agreement of the attention in words."""
        predictions = []
        for run, name in zip(self.runs, ('first', 'second')):
            probability, label = max((row[name], row['label']) for row in self.probabilities if row[name] is not None)
            predictions.append(f'{run}: {label} {probability:.1%}')
        return f'{"; ".join(predictions)}; correlation of the attention {_signed(self.attention_correlation)}'

    def to_json(self) -> str:
        return json.dumps({'schema': SCHEMA} | dataclasses.asdict(self), allow_nan=False, ensure_ascii=False)

    def render(self, explanations: Mapping[str, ExplanationData], links: Mapping[str, str]) -> str:
        """Returns the page that shows both explanations side by side; `links` are those of the runs' own files."""
        return page.fill(
            'compare.html',
            ('style.css', 'compare.css'),
            (),
            title=f'{self.file}: {self.runs[0]} and {self.runs[1]}',
            sentence=f'{self.sentence()}.',
            raw_runs=''.join(f'<th scope="col">{html.escape(run)}</th>' for run in self.runs),
            raw_probabilities='\n'.join(map(_probability_row, self.probabilities)),
            raw_agreement='\n'.join(_agreement_row(*row) for row in self._agreement()),
            raw_frames='\n'.join(_frames(run, each, self.label) for run, each in explanations.items()),
            raw_links=' '.join(
                f'<li><a href="{index.link(href)}">the explanation by {html.escape(run)}</a></li>'
                for run, href in links.items()
            ),
            subject=self.label or 'the best class of each run',
        )

    def _agreement(self) -> list[tuple[str, str]]:
        rows = [
            ('correlation of the attention in space', _signed(self.attention_correlation)),
            ('attention at the same points', sentences.percent(self.attention_intersection)),
        ]
        if self.label is not None:
            rows.append((f'correlation of the visual contributions to {self.label}', _signed(self.visual_correlation)))
            rows.append((f'correlation of the audio contributions to {self.label}', _signed(self.audio_correlation)))
        return rows


def compare(explanations: Mapping[str, ExplanationData], label: str | None = None) -> Comparison:
    """Compares two explanations of one clip, given by the names of their runs.

    The terms are those of `label`, by default of the best class of the first run that the second run knows. Raises
    ValueError for a label that a run does not know.
    """
    (first_run, first), (second_run, second) = explanations.items()
    if label is None:
        label = next((row['label'] for row in first.top(len(first.classes)) if row['label'] in second.classes), None)
    pair, times = (first, second), _times(first, second)
    alphas = [_sampled(each, each.alpha, times) for each in pair]
    visual = audio = None
    if label is not None:
        terms = [each.contributions(label) for each in pair]
        visual = _correlation(*(_sampled(each, term[1], times) for each, term in zip(pair, terms)))
        audio = _correlation(*(_in_time(each, term[2], times) for each, term in zip(pair, terms)))
    return Comparison(
        runs=(first_run, second_run),
        file=first.media['file'],
        probabilities=_probabilities(first, second),
        label=label,
        attention_correlation=_correlation(*alphas),
        attention_intersection=_intersection(*alphas),
        visual_correlation=visual,
        audio_correlation=audio,
    )


def write(
    explanations: Mapping[str, ExplanationData],
    folder: pathlib.Path,
    links: Mapping[str, str],
    label: str | None = None,
) -> Comparison:
    """Writes RECORD and PAGE into a folder and returns the comparison; `links` lead to the pages of the runs."""
    comparison = compare(explanations, label)
    files.write_text(folder / RECORD, comparison.to_json())
    files.write_text(folder / PAGE, comparison.render(explanations, links))
    return comparison


def _probabilities(first: ExplanationData, second: ExplanationData) -> list[dict[str, Any]]:
    labels = dict.fromkeys(row['label'] for each in (first, second) for row in each.top(_BEST))
    rows = []
    for label in labels:
        numbers = [
            rounded(each.probabilities[each.class_index(label)]) if label in each.classes else None
            for each in (first, second)
        ]
        rows.append({'label': label, 'first': numbers[0], 'second': numbers[1]})
    return sorted(rows, key=lambda row: -max(row['first'] or 0, row['second'] or 0))


# ---------------------------------------------------------------------------------------------------------------------
# Maps at common points
# ---------------------------------------------------------------------------------------------------------------------


def _times(first: ExplanationData, second: ExplanationData) -> np.ndarray:
    """Returns the middles of the shorter segments (s from the start of the clip) that both explanations cover."""
    lengths = [each.geometry['segment_seconds'] for each in (first, second)]
    end = min(len(each.valid) * length for each, length in zip((first, second), lengths))
    return np.arange(min(lengths) / 2, end, min(lengths))


def _in_time(explanation: ExplanationData, values_t: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns the values [n ...] of the segments at n times; NaN where a segment is not valid."""
    t = (times / explanation.geometry['segment_seconds'] + 1e-6).astype(int)
    return np.where(explanation.valid[t].reshape(-1, *[1] * (values_t.ndim - 1)), values_t[t], np.nan)


def _sampled(explanation: ExplanationData, map_thw: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns a map [t h w] at times and points of the source frame [n y x]; NaN outside the grid."""
    to, points = explanation.geometry['to_source'], (np.arange(_POINTS) + 0.5) / _POINTS
    sampled = _in_time(explanation, map_thw.astype(float), times)
    for axis, name in ((1, 'y'), (2, 'x')):
        cells = sampled.shape[axis]
        cell = np.floor((points - to[f'{name}_offset']) / to[f'{name}_scale'] * cells).astype(int)
        inside = ((0 <= cell) & (cell < cells)).reshape([-1 if i == axis else 1 for i in range(3)])
        sampled = np.where(inside, np.take(sampled, cell.clip(0, cells - 1), axis=axis), np.nan)
    return sampled


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    both = np.isfinite(first) & np.isfinite(second)
    return correlation(first[both], second[both]) if both.any() else None


def _intersection(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the shared part of two densities [n y x], each of which sums to 1 at every time; 0 without such times."""
    both = np.isfinite(first) & np.isfinite(second)
    masses = [np.where(both, each, 0) for each in (first, second)]
    sums = [mass.sum(axis=(1, 2), keepdims=True) for mass in masses]
    known = ((sums[0] > 0) & (sums[1] > 0)).ravel()
    if not known.any():
        return 0.0
    shares = [mass[known] / total[known] for mass, total in zip(masses, sums)]
    return float(np.minimum(*shares).sum(axis=(1, 2)).mean())


# ---------------------------------------------------------------------------------------------------------------------
# Parts of the page
# ---------------------------------------------------------------------------------------------------------------------


def _signed(value: float | None) -> str:
    return 'unknown (a constant map)' if value is None else sentences.signed(value)


def probability_texts(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Returns a row of Comparison.probabilities as texts: the class, both probabilities and their difference."""
    first, second = row['first'], row['second']
    points = '' if None in (first, second) else f'{sentences.signed(100 * (second - first))} points'
    texts = ['not a class' if x is None else f'{x:.1%}' for x in (first, second)]
    return row['label'], texts[0], texts[1], points


def _probability_row(row: dict[str, Any]) -> str:
    label, *numbers = probability_texts(row)
    cells = ''.join(f'<td>{text}</td>' for text in numbers)
    return f'<tr><th scope="row">{html.escape(label)}</th>{cells}</tr>'


def _agreement_row(name: str, value: str) -> str:
    return f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'


def _frames(run: str, explanation: ExplanationData, label: str | None) -> str:
    """Returns the frames of one run with its heat map, each with the evidence of its segment below."""
    # figure.py imports Matplotlib, which takes a second.
    from stattn_jax.explain.figure import shown_segments

    c = explanation.class_index(label)
    figures = []
    for t in shown_segments(explanation.visual[c]):
        picture = page.data_url('image/jpeg', index.heat_jpeg(explanation, c, t, _FRAME))
        seconds = sentences.seconds(explanation, t, t + 1)
        terms = explanation.visual[c, t].sum(dtype=float), explanation.audio[c, t]
        figures.append(
            f'<figure><img src="{picture}" alt="Heat map of {html.escape(run)} at {seconds}"><figcaption>{seconds}<br>'
            f'visual {sentences.signed(terms[0])}, audio {sentences.signed(terms[1])}</figcaption></figure>'
        )
    title = f'{run}: {explanation.classes[c]} {sentences.percent(explanation.probabilities[c])}'
    return f'<section><h3>{html.escape(title)}</h3><div class="frames">{"".join(figures)}</div></section>'

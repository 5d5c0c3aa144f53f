"""Standard protocol of sounding-source maps (VGG-SS, Flickr-SoundNet): cIoU, its AUC, and the pixel pointing game.

Everything is computed in pixels of the whole frame at 224 x 224. The half of the pixels with the largest values of the
map is the prediction, whatever the map, so that a perfect map reaches 50.5 % on VGG-SS and a blob in the middle of
every frame 33.9 %, while published models have about 40. Read the numbers between these two, which `summary` reports
too. Sources: Senocak et al., arXiv 1803.03849 (cIoU), Chen et al., arXiv 2104.02691 (VGG-SS) and the evaluator that
came with it. localization.py has the pointing game on the model's own cells.
"""

from collections.abc import Sequence

import numpy as np

from stattn_jax.metrics import localization

SIDE = 224
# The number of pixels that a map without ties predicts: those above the middle one of the sorted values.
PREDICTED = SIDE * SIDE - SIDE * SIDE // 2 - 1
TOLERANCE = 15
# The products 0.05 * i, as in the published evaluators, can differ from the decimals in the last bit (0.15).
THRESHOLDS = 0.05 * np.arange(21)


def box_distance(boxes_k4: np.ndarray) -> np.ndarray:
    """Returns the distance in pixels from each pixel [224 224] to the nearest pixel of any box.

    It is 0 inside, and inf everywhere if no box has a pixel. A box x0 y0 x1 y1 in 0..1 of the frame covers columns
    int(224 x0) to int(224 x1) - 1, and rows likewise. Parts outside the frame are cut off, and a box left without a
    column or a row covers nothing (the evaluator's rule, which excludes VGG-SS's 18 broken boxes).
    """
    corners = np.clip(np.asarray(boxes_k4, float).reshape(-1, 4) * SIDE, 0, SIDE).astype(int)
    pixel = np.arange(SIDE)
    nearest = np.full((SIDE, SIDE), np.inf)
    for x0, y0, x1, y1 in corners[(corners[:, :2] < corners[:, 2:]).all(axis=1)]:
        dx = np.maximum(np.maximum(x0 - pixel, pixel - (x1 - 1)), 0)
        dy = np.maximum(np.maximum(y0 - pixel, pixel - (y1 - 1)), 0)
        nearest = np.minimum(nearest, np.hypot(dx, dy[:, None]))
    return nearest


def draw(map_hw: np.ndarray, affine: Sequence[float]) -> np.ndarray:
    """Returns a map in pixels of the source frame [224 224], bilinear between cell centres, constant beyond them.

    `affine` maps the model's view to the source frame (localization.cell_centres); source pixels that the model did not
    see have the map's minimum.
    """
    x_scale, x_offset, y_scale, y_offset = affine
    pixel = (np.arange(SIDE) + 0.5) / SIDE
    x, y = (pixel - x_offset) / x_scale, (pixel - y_offset) / y_scale
    drawn = _between_cells(_between_cells(np.asarray(map_hw, float), y, 0), x, 1)
    seen = ((0 <= y) & (y < 1))[:, None] & ((0 <= x) & (x < 1))
    return np.where(seen, drawn, np.min(map_hw))


def _between_cells(values, place, axis):
    """Interpolates linearly along an axis; a + f (b - a) keeps constant maps exactly constant, and so their ties."""
    cells = values.shape[axis]
    position = np.clip(place * cells - 0.5, 0, cells - 1)
    low = position.astype(int)
    fraction = np.expand_dims(position - low, 1 - axis)
    a, b = np.take(values, low, axis), np.take(values, np.minimum(low + 1, cells - 1), axis)
    return a + fraction * (b - a)


def larger_half(drawn: np.ndarray) -> np.ndarray:
    """Returns bool, same shape: the pixels above the value with index size / 2 of the sorted values.

    That index is 25,088 of 50,176, so that a map without ties has 25,087 such pixels. Pixels that tie with that value
    are not predicted, as in VGG-SS's own evaluator, so that a constant map predicts nothing; some later evaluators
    (EZ-VSL's) predict them, which is one pixel more where there are no ties.
    """
    return drawn > np.partition(drawn, drawn.size // 2, axis=None)[drawn.size // 2]


def ciou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Returns sum(p g) / (sum(g) + number of predicted pixels where g = 0), of a boolean p and g in 0..1.

    It is 0 where both are empty. With the union of the boxes as g it is the plain IoU; a fractional g is the
    annotators' consensus of Flickr-SoundNet.
    """
    union = float(truth.sum() + (predicted & (truth == 0)).sum())
    return float(truth[predicted].sum()) / union if union else 0.0


def rates(ciou_n: np.ndarray) -> tuple[float, float]:
    """Returns the share of clips with cIoU >= 0.5, and the area under that share over thresholds 0, 0.05, ..., 1.

    The area is computed by the trapezoid rule.
    """
    reached = (ciou_n >= THRESHOLDS[:, None]).mean(axis=1)
    return float((ciou_n >= 0.5).mean()), float(np.trapezoid(reached, THRESHOLDS))


def centre_prior() -> np.ndarray:
    """Returns minus the squared distance from the frame's middle [224 224].

    Every blob in the middle that falls off with the distance has the same larger half.
    """
    pixel = np.arange(SIDE) - (SIDE - 1) / 2
    return -(pixel**2 + pixel[:, None] ** 2)


def summary(
    maps_nhw: np.ndarray,
    boxes: Sequence[np.ndarray],
    affines: Sequence[Sequence[float]],
    classes_n: Sequence[int] | np.ndarray,
) -> dict[str, float | int]:
    """Returns the `sounding/` block of eval_SPLIT.json from the maps of the annotated frames.

    `boxes[i]` is [k 4] in 0..1 of the source frame. `ciou` and `auc` as in `rates`, and the same under `_centre` (a
    blob in the middle of the frame), `_all` (every pixel) and `_oracle` (the best that the larger half allows).

    `point`: the pointing game at these pixels, is the map's highest pixel inside a box (expected hit over ties)?
    `point_tolerant`: or nearer than 15 pixels to one. `point_small`, `point_small_tolerant`: on the `point_small_n`
    clips whose boxes cover less than a quarter of the frame. Each also has a suffix `_macro`, the mean over classes of
    the classes' rates; `_centre`, pixel (112, 112); `_random`, a pixel sampled at random.

    `n` counts clips. A clip whose boxes cover no pixel cannot be hit: it stays in with a cIoU of 0, as in the published
    evaluators (2 of VGG-SS's 5,158), and `unscorable` counts it. The caller leaves out clips that do not belong to the
    set; without any clip, the block holds only `n`. Raises ValueError where a map is not finite.
    """
    if not len(maps_nhw):
        return {'sounding/n': 0}
    bad = int((~np.isfinite(maps_nhw)).any(axis=(1, 2)).sum())
    if bad:
        raise ValueError(f'{bad} of {len(maps_nhw)} maps have a value that is not finite; leave masked frames out')
    centre = larger_half(centre_prior())
    area_n = np.empty(len(maps_nhw))
    overlap = {'': np.empty_like(area_n), '_centre': np.empty_like(area_n)}
    hits = {(game, row): np.empty_like(area_n) for game in _GAMES for row in _POINTERS}
    for i, (map_hw, boxes_k4, affine) in enumerate(zip(maps_nhw, boxes, affines, strict=True)):
        distance, drawn = box_distance(boxes_k4), draw(map_hw, affine)
        inside = distance == 0
        area_n[i] = inside.sum()
        overlap[''][i], overlap['_centre'][i] = ciou(larger_half(drawn), inside), ciou(centre, inside)
        for game, row in hits:
            hits[game, row][i] = _POINTERS[row](drawn, distance < _GAMES[game])
    overlap['_all'] = area_n / SIDE**2
    overlap['_oracle'] = np.minimum(area_n, PREDICTED) / np.maximum(area_n, PREDICTED)
    return {
        **{f'sounding/{key}{row}': x for row, c in overlap.items() for key, x in zip(('ciou', 'auc'), rates(c))},
        **_point_rates(hits, np.asarray(classes_n), area_n < localization.SMALL * SIDE**2),
        'sounding/n': len(area_n),
        'sounding/unscorable': int((area_n == 0).sum()),
    }


# Distances are 0 or at least 1, so that below 1 means inside.
_GAMES = {'': 1, '_tolerant': TOLERANCE}
_POINTERS = {
    '': localization.expected_hit,
    '_centre': lambda drawn, target: target[SIDE // 2, SIDE // 2],
    '_random': lambda drawn, target: target.mean(),
}


def _point_rates(hits, classes_n, small_n):
    numbers: dict[str, float | int] = {'sounding/point_small_n': int(small_n.sum())}
    for subset, kept_n in (('', np.ones_like(small_n)), ('_small', small_n)):
        if not kept_n.any():
            continue
        for (game, row), hit_n in hits.items():
            numbers[f'sounding/point{subset}{game}{row}'] = float(hit_n[kept_n].mean())
        for game in _GAMES:
            rate = localization.macro(hits[game, ''][kept_n], classes_n[kept_n])
            numbers[f'sounding/point{subset}{game}_macro'] = rate
    return numbers

"""Metrics of heat against masks as AVSBench's evaluator computes them: mIoU ("J"), and F-score with beta^2 = 0.3.

Heat is float [224 224] in 0..1 of the whole source frame; the pixels with heat >= threshold are the prediction. The
source is `mask_iou` and `Eval_Fmeasure` of github.com/OpenNLPLab/AVSBench, avs_scripts/avs_s4/utils/utility.py (Zhou et
al., arXiv 2207.05042). That code averages over batches, so that the frames of a last, smaller batch weigh more; here
every frame weighs the same. Its F is the best over the thresholds of the split that is scored, which `f_best` repeats;
`f` and `miou` are at one threshold that the caller chose on another split.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from stattn_jax.metrics import localization, sounding

SIDE = sounding.SIDE
BETA2 = 0.3
THRESHOLDS = np.linspace(0, 1 - 1e-10, 255)


class ThresholdCurves:
    """Mean IoU and mean F over frames at each threshold.

    `frames` counts the frames of the IoU. A frame with an empty mask has no F; `with_object` counts the others.
    """

    def __init__(self, frames: Iterable[tuple[np.ndarray, np.ndarray]] = ()):
        self._iou, self._f = np.zeros((2, len(THRESHOLDS)))
        self.frames = self.with_object = 0
        for heat_hw, mask_hw in frames:
            self.add(levels(heat_hw), mask_hw)

    def add(self, level_hw: np.ndarray, mask_hw: np.ndarray) -> None:
        """Adds a frame: the `levels` of its heat [h w] and its mask bool [h w]."""
        iou, f = iou_and_f(level_hw, mask_hw)
        self._iou += iou
        self.frames += 1
        if f is not None:
            self._f += f
            self.with_object += 1

    @property
    def iou(self) -> np.ndarray:
        """Mean IoU at each threshold, float [255]."""
        return self._iou / max(self.frames, 1)

    @property
    def f(self) -> np.ndarray:
        """Mean F at each threshold, float [255]."""
        return self._f / max(self.with_object, 1)

    def best_threshold(self) -> float:
        """Returns the threshold with the largest mean IoU."""
        return float(THRESHOLDS[self.iou.argmax()])

    def numbers(self, threshold: float | None) -> dict[str, float]:
        """Returns `iou_auc` and `f_best`, and at a threshold, if there is one, `miou` and `f`.

        `iou_auc` is the mean of the IoU over all thresholds. Without any frame the result is empty, and without a frame
        that shows an object there is no F.
        """
        numbers = {'iou_auc': float(self.iou.mean())} if self.frames else {}
        if self.with_object:
            numbers['f_best'] = float(self.f.max())
        if threshold is not None:
            at = int(np.searchsorted(THRESHOLDS, threshold))
            numbers |= {'miou': float(self.iou[at])} if self.frames else {}
            numbers |= {'f': float(self.f[at])} if self.with_object else {}
        return numbers


def levels(heat: np.ndarray) -> np.ndarray:
    """Returns how many of the thresholds each value of a heat in 0..1 reaches, int of the same shape."""
    # A search for each pixel would take five times as long. The product is off by one, or right.
    last = len(THRESHOLDS) - 1
    level = (heat * (last / THRESHOLDS[-1])).astype(int)
    level += (level < last) & (heat >= THRESHOLDS[np.minimum(level + 1, last)])
    return level + (heat >= THRESHOLDS[level])


def iou_and_f(level_hw: np.ndarray, mask_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns IoU and F of one frame at each threshold, float [255], from the `levels` of its heat.

    For an empty mask, the IoU is the share of pixels that are not predicted, and F is None.
    """
    predicted, hit = _reaching(level_hw), _reaching(level_hw[mask_hw])
    if not mask_hw.any():
        return (mask_hw.size - predicted) / (mask_hw.size + 1e-7), None
    area = mask_hw.sum()
    precision, recall = hit / (predicted + 1e-20), hit / area
    weighted = BETA2 * precision + recall
    f = np.divide((1 + BETA2) * precision * recall, weighted, out=np.zeros_like(weighted), where=weighted > 0)
    return hit / (predicted + area - hit + 1e-7), f


def _reaching(level_hw: np.ndarray) -> np.ndarray:
    """Returns how many pixels reach each threshold, int [255]."""
    counts = np.bincount(level_hw.ravel(), minlength=len(THRESHOLDS) + 1)
    return counts[::-1].cumsum()[::-1][1:]


def normalise(map_thw: np.ndarray) -> np.ndarray:
    """Returns the positive part of a clip's map divided by its maximum over the clip, in 0..1; -inf counts as 0.

    One scale for the whole clip keeps a segment weak in which the map is weak everywhere.
    """
    positive = np.maximum(map_thw, 0)
    most = positive.max(initial=0)
    return positive / most if most > 0 else positive


def centre_heat() -> np.ndarray:
    """Returns heat [224 224] that falls with the squared distance from the middle of the frame, from 1 to 0."""
    prior = sounding.centre_prior()
    return (prior - prior.min()) / (prior.max() - prior.min())


def cells_in_mask(grid: tuple[int, int], mask_hw: np.ndarray, affine: Sequence[float]) -> np.ndarray:
    """Returns bool [h w]: the cells of the model's grid whose centre lies in a mask of the whole source frame."""
    centres = localization.cell_centres(grid, affine)
    column, row = (
        np.clip((at * side).astype(int), 0, side - 1) for at, side in zip(centres, mask_hw.shape[::-1], strict=True)
    )
    return mask_hw[row[:, None], column]

"""The distance of a clip's features from those of the training clips, and the distance that few of these exceed.

The distance is Mahalanobis's, of the features of single segments from their mean in training (Lee et al. 2018,
arXiv 1807.03888, who use the nearest class's mean: measured here, that finds no more). The mean and the covariance come
from one half of the clips and the threshold from the other, so that a new clip of the same kind exceeds it at most at
the stated rate (split conformal prediction, arXiv 2107.07511, section 1).
"""

import dataclasses
import os
import sys
import zipfile
from typing import Any, Self

import numpy as np

from stattn_jax import files

MODALITIES = ('visual', 'audio')
# Share of the mean variance that is added to every direction, so that the covariance can be inverted, and what is added
# in any case, for features that do not vary at all; float32 can hold its inverse.
SHRINKAGE, LEAST_VARIANCE = 1e-3, np.finfo(np.float32).tiny


@dataclasses.dataclass(frozen=True)
class TrainingDistance:
    """The distance of one modality: mean [d] and precision [d d] of the segments' features, and the threshold."""

    mean: np.ndarray
    precision: np.ndarray
    threshold: float

    @classmethod
    def fit(cls, features_ntd: np.ndarray, valid_nt: np.ndarray, rate: float) -> Self:
        """Fits the distance to n >= 2 clips, of which at most the share `rate` of similar clips exceeds the threshold.

        With fewer than 1 / rate held-out clips the threshold is their largest distance, and the share is at most
        `exceeded` of their number.
        """
        order = np.random.default_rng(0).permutation(len(features_ntd))
        fitted, held_out = order[: len(order) // 2], order[len(order) // 2 :]
        segments = features_ntd[fitted][valid_nt[fitted]].astype(float)
        width = segments.shape[1]
        covariance = np.cov(segments, rowvar=False).reshape(width, width)
        covariance += (SHRINKAGE * np.trace(covariance) / width + LEAST_VARIANCE) * np.eye(width)
        unbounded = cls(segments.mean(axis=0), np.linalg.inv(covariance), np.inf)
        distances = np.sort(unbounded(features_ntd[held_out], valid_nt[held_out]))
        place = min(int(np.ceil((len(distances) + 1) * (1 - rate))), len(distances))
        return dataclasses.replace(unbounded, threshold=float(distances[place - 1]))

    def __call__(self, features_ntd: np.ndarray, valid_nt: np.ndarray) -> np.ndarray:
        """Returns the distance of each clip [n]: the root mean square over its valid segments and the dimensions."""
        off = features_ntd.astype(float) - self.mean
        squares_nt = np.einsum('ntd,de,nte->nt', off, self.precision, off, optimize=True) * valid_nt
        return np.sqrt(squares_nt.sum(axis=1) / np.maximum(valid_nt.sum(axis=1), 1) / len(self.mean))


def exceeded(rate: float, held_out: int) -> float:
    """Returns the share of similar clips that exceeds a threshold which was fitted for `rate`, at most."""
    return max(rate, 1 / (held_out + 1))


def save(path: str | os.PathLike, rows: dict[str, np.ndarray], rate: float, step: int, parameters: str) -> None:
    """Fits the distance of each modality to rows [n t d] with `valid` [n t] and writes them.

    `rate` is the share of similar clips that exceeds at least one of the thresholds, at most. `step` is that of the
    checkpoint, and `parameters` is the hash of its parameters.
    """
    each = rate / len(MODALITIES)
    held_out = len(rows['valid']) - len(rows['valid']) // 2
    arrays: dict[str, Any] = {'step': step, 'parameters': parameters, 'held_out': held_out}
    arrays['rate'] = len(MODALITIES) * exceeded(each, held_out)
    for name in MODALITIES:
        fitted = dataclasses.asdict(TrainingDistance.fit(rows[name], rows['valid'], each))
        arrays |= {f'{name}_{field}': np.float32(value) for field, value in fitted.items()}
    with files.whole_file(path) as file:
        np.savez_compressed(file, **arrays)


def copy(source: str | os.PathLike, path: str | os.PathLike, parameters: str) -> None:
    """Writes the file `source` to `path` for the parameters of another hash, such as those of a rounded network."""
    with open(source, 'rb') as file:
        arrays = dict(np.load(file))
    with files.whole_file(path) as file:
        np.savez_compressed(file, **arrays | {'parameters': np.array(parameters)})


def load(path: str | os.PathLike, step: int, parameters: str) -> dict[str, Any]:
    """Returns {'rate', 'held_out', 'visual', 'audio'} as `save` wrote it; {} for no file.

    A file of another network, by the hash of its parameters, is not used either, and a notice says so. A file of
    version 0.1 without that hash counts if its step is the same. Raises ValueError for a file that cannot be read.
    """
    if not os.path.exists(path):
        return {}
    try:
        # NumPy does not close a damaged file that it opened itself.
        with open(path, 'rb') as file:
            arrays = dict(np.load(file))
        names = [field.name for field in dataclasses.fields(TrainingDistance)]
        found = {m: TrainingDistance(*(arrays[f'{m}_{name}'] for name in names)) for m in MODALITIES}
        numbers = {'rate': float(arrays['rate']), 'held_out': int(arrays['held_out'])}
        of_step = int(arrays['step'])
        matches = str(arrays['parameters']) == parameters if 'parameters' in arrays else of_step == step
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} cannot be read ({error}); remove it, or evaluate the run again to renew it') from None
    if not matches:
        print(
            f'notice: {path} belongs to other parameters (step {of_step}) than those of this network (step {step}), '
            'and is not used; --mode=eval of the run writes it again',
            file=sys.stderr,
        )
    return numbers | found if matches else {}

"""Which events happen in which segments, decided from the network's segment logits; plain NumPy on the rows of a split.

A softmax over classes always names one, so "nothing happens" is decided by the probability of each class in a clip that
were this segment alone (models/contributions.segment_logits), and by the null cell. Thresholds are 1/2 throughout:
nothing
here is fitted to a split. Read next: segments.py and parsing.py, which score the decisions.
"""

import numpy as np


def log_probabilities(logits: np.ndarray, *, binary: bool) -> np.ndarray:
    """Log-sigmoid of each logit [... c] where each class is a yes or no of its own, else the log-softmax over
    classes.
    """
    if binary:
        return -np.logaddexp(0, -logits)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def probabilities(logits: np.ndarray, *, binary: bool) -> np.ndarray:
    """The exponential of `log_probabilities`: [... c]."""
    return np.exp(log_probabilities(logits, binary=binary))


def candidates(clip_nc: np.ndarray, *, single: bool) -> np.ndarray:
    """The classes that a clip may hold by its probabilities, bool [n c]: the best one alone, or every one as likely as
    not.

    A clip of AVE holds one event; LLP's evaluators ask for the probability of the whole video beside the segment's
    (HAN, arXiv 2007.10558).
    """
    if single:
        return np.arange(clip_nc.shape[1]) == clip_nc.argmax(axis=1)[:, None]
    return clip_nc >= 0.5


def joint_events(
    segment_ntc: np.ndarray, null_nt: np.ndarray, valid_nt: np.ndarray, candidates_nc: np.ndarray
) -> np.ndarray:
    """Audio-visual events, bool [n t c]: likely in the segment as a whole, and its sound has a visible source (null
    cell below 1/2).
    """
    there_nt = valid_nt & (null_nt < 0.5)
    return (segment_ntc >= 0.5) & there_nt[..., None] & candidates_nc[:, None]


def modality_events(unit_nmtc: np.ndarray, valid_nt: np.ndarray, candidates_nc: np.ndarray) -> np.ndarray:
    """Events seen and events heard, bool [n m t c]: likely by the segment's picture, or by its sound."""
    return (unit_nmtc >= 0.5) & valid_nt[:, None, :, None] & candidates_nc[:, None, None]

"""Decides which events happen in which segments from the network's segment logits, in NumPy on the rows of a split.

A softmax over classes always gives one class the highest probability. Whether anything happens is therefore decided by
the probability that each class would have in a clip that consisted of this segment alone
(models/contributions.segment_logits), and by the null cell. All thresholds are 1/2; none is fitted to a split.
segments.py and parsing.py score the decisions.
"""

import numpy as np


def log_probabilities(logits: np.ndarray, *, binary: bool) -> np.ndarray:
    """Returns the log-sigmoid of each logit [... c] (`binary`), else the log-softmax over the classes.

    `binary` means an independent sigmoid per class.
    """
    if binary:
        return -np.logaddexp(0, -logits)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def probabilities(logits: np.ndarray, *, binary: bool) -> np.ndarray:
    """Returns the exponential of `log_probabilities`: [... c]."""
    return np.exp(log_probabilities(logits, binary=binary))


def candidates(clip_nc: np.ndarray, *, single: bool) -> np.ndarray:
    """Returns the classes that a clip may contain, bool [n c]: the best one (`single`), or all with at least 1/2.

    A clip of AVE holds one event; LLP's evaluators use the probability of the whole video beside the segment's (HAN,
    arXiv 2007.10558).
    """
    if single:
        return np.arange(clip_nc.shape[1]) == clip_nc.argmax(axis=1)[:, None]
    return clip_nc >= 0.5


def joint_events(
    segment_ntc: np.ndarray, null_nt: np.ndarray, valid_nt: np.ndarray, candidates_nc: np.ndarray
) -> np.ndarray:
    """Returns the audio-visual events, bool [n t c].

    A class counts if its probability in the whole segment is at least 1/2 and the sound has a visible source (null cell
    below 1/2).
    """
    there_nt = valid_nt & (null_nt < 0.5)
    return (segment_ntc >= 0.5) & there_nt[..., None] & candidates_nc[:, None]


def modality_events(unit_nmtc: np.ndarray, valid_nt: np.ndarray, candidates_nc: np.ndarray) -> np.ndarray:
    """Returns the visible and the audible events, bool [n m t c].

    A class counts if the segment's frame alone, or its audio alone, gives it a probability of at least 1/2.
    """
    return (unit_nmtc >= 0.5) & valid_nt[:, None, :, None] & candidates_nc[:, None, None]

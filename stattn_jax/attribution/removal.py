"""Removal at the input: clips without some of their cells and without some of their segments' sound.

Each removal replaces the removed part, and the result depends on the replacement; studies therefore use several (PAIRS)
and name each. Sound is removed before the log-mel front-end, since a zero in a log-mel is a loud sound, and on the
host. Pictures are changed in JAX, vmappable over clips and over masks. Segments are independent: removing one segment's
sound changes no other segment's patch, so one replacement patch per segment is enough. Nothing here needs a network.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.attribution.arrays import Array, ClipArrays
from stattn_jax.data.mel import MelSpec, log_mel

FrameReplacement = Literal['blur', 'mean', 'freeze']
PAIRS: tuple[tuple[FrameReplacement, str], ...] = (('blur', 'mute'), ('mean', 'noise'), ('freeze', 'mean'))
# In the setting 'feature' nothing is replaced: the network's own masks remove the features after the trunks.
SETTINGS = ('feature', *PAIRS)

FADE_SECONDS = 0.015
QUIET_SHARE = 0.1


# ---------------------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------------------


def sound_absent(
    waveform: np.ndarray,
    mel: MelSpec,
    segments: int,
    segment_seconds: float,
    mean_fk: np.ndarray,
    seed: int | tuple[int, ...] = 0,
) -> dict[str, np.ndarray]:
    """Returns the replacement of each segment's log-mel when its sound is removed: {operator: float32 [t f k]}.

    'mute': the segment is silent, after a raised-cosine fade of 15 ms at its beginning and before one at its end.
    'noise': stationary Gaussian noise with the mean spectrum of the quietest tenth of the clip's windows. 'mean':
    `mean_fk`, the training set's mean patch.

    Args:
      waveform: float [n], mono, at `mel.rate`, full scale 1; a short waveform is padded with silence at its end.
      seed: of the noise; give each clip its own.
    """
    edges = np.rint(np.arange(segments + 1) * (segment_seconds * mel.rate)).astype(int)
    waveform = waveform[: edges[-1]]
    muted = np.pad(waveform, (0, edges[-1] - len(waveform))) * _fades(edges, round(FADE_SECONDS * mel.rate))
    noise = _noise(quiet_spectrum(waveform, mel), edges[-1], mel, np.random.default_rng(seed))
    patches = {name: log_mel(x, mel, segments, segment_seconds) for name, x in (('mute', muted), ('noise', noise))}
    mean = np.broadcast_to(mean_fk, patches['mute'].shape)
    return {name: x.astype(np.float32) for name, x in (patches | {'mean': mean}).items()}


def log_mel_absent(
    log_mel_tfk: np.ndarray, valid_t: np.ndarray, silence: float, mean_fk: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the replacements of `sound_absent` for a clip whose waveform is not known: {operator: float32 [t f k]}.

    They are made from the log-mel alone: 'mute' is silent everywhere, without fades, and 'noise' is steady, the mean of
    the quietest tenth of the log-mel frames of the clip's valid segments.
    """
    frames_nk = log_mel_tfk[valid_t].reshape(-1, log_mel_tfk.shape[-1])
    quietest = np.argsort(frames_nk.mean(axis=1), kind='stable')[: max(1, round(QUIET_SHARE * len(frames_nk)))]
    patches = {'mute': np.float32(silence), 'noise': frames_nk[quietest].mean(axis=0), 'mean': mean_fk}
    return {name: np.broadcast_to(x, log_mel_tfk.shape).astype(np.float32) for name, x in patches.items()}


def quiet_spectrum(waveform: np.ndarray, mel: MelSpec) -> np.ndarray:
    """Power per sample and frequency, float64 [fft/2+1], of the quietest tenth of the front-end's windows (mean).

    White noise of variance 1 has 1 everywhere.
    """
    hann = np.hanning(mel.window + 1)[:-1]  # of period `window`, as in data/mel.py
    windows = np.lib.stride_tricks.sliding_window_view(waveform, mel.window)[:: mel.hop] * hann
    power = np.abs(np.fft.rfft(windows, n=mel.fft)) ** 2
    quietest = np.argsort(power.sum(axis=1), kind='stable')[: max(1, round(QUIET_SHARE * len(power)))]
    return power[quietest].mean(axis=0) / (hann @ hann)


def _noise(spectrum, samples, mel, rng):
    """Returns Gaussian noise of this spectrum, [samples]."""
    shaped = np.interp(np.fft.rfftfreq(samples), np.fft.rfftfreq(mel.fft), np.sqrt(spectrum))
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * shaped, samples)


def _fades(edges, samples):
    """Returns the gain of segments that are all muted, each with its own fades."""
    loudness = np.zeros(edges[-1])
    fall = 0.5 + 0.5 * np.cos(np.pi * (np.arange(samples) + 0.5) / samples)
    for first, end in zip(edges, edges[1:]):
        loudness[first : first + samples], loudness[end - samples : end] = fall, fall[::-1]
    return loudness


# ---------------------------------------------------------------------------------------------------------------------
# Picture
# ---------------------------------------------------------------------------------------------------------------------


def without(
    clip: ClipArrays,
    absent_log_mel: jax.Array,
    keep_thw: jax.Array,
    keep_t: jax.Array,
    operator: FrameReplacement,
    mean_hw3: jax.Array,
) -> ClipArrays:
    """Returns one clip that keeps the cells `keep_thw` and the sounds `keep_t` (bool).

    `absent_log_mel` [t f k] comes from `sound_absent`.
    """
    frames = picture_without(operator, clip.frames, keep_thw & clip.valid[:, None, None], mean_hw3)
    return ClipArrays(frames, jnp.where(keep_t[:, None, None], clip.log_mel, absent_log_mel), clip.valid)


def absent(clip: ClipArrays, absent_log_mel: jax.Array, operator: FrameReplacement, mean_hw3: jax.Array) -> ClipArrays:
    """Returns one clip with everything removed, the baseline of explainers.py."""
    nothing = jnp.zeros(len(clip.valid), bool)
    return without(clip, absent_log_mel, nothing[:, None, None], nothing, operator, mean_hw3)


def picture_without(operator: FrameReplacement, frames: Array, keep_thw: jax.Array, mean_hw3: jax.Array) -> jax.Array:
    """Returns frames [t H W 3] of one clip that keep the cells `keep_thw` (bool).

    H and W are multiples of h and w. 'blur': a removed cell shows the frame blurred by a Gaussian whose standard
    deviation is an eighth of the side. 'mean': it shows the training set's mean picture `mean_hw3`, [H W 3]. 'freeze':
    it shows the same place at the nearest segment that keeps it, the earlier of two; a cell that no segment keeps shows
    the mean picture.
    """
    return assemble(bank(frames, mean_hw3), sources(operator, keep_thw))


def bank(frames: Array, mean_hw3: jax.Array) -> jax.Array:
    """Returns all pictures that a cell can show, [2t+1 H W 3]: the frames, the blurred frames, the mean picture."""
    rows, columns = (_gaussian(side) for side in frames.shape[1:3])
    blurred = jnp.einsum('ij,tjkc,lk->tilc', rows, frames, columns, precision='highest')
    return jnp.concatenate([frames, blurred, mean_hw3[None]])


def sources(operator: FrameReplacement, keep_thw: jax.Array) -> jax.Array:
    """Returns the index in the `bank` of the picture that each cell shows, int32 [t h w]."""
    t = keep_thw.shape[0]
    own = jnp.arange(t, dtype=jnp.int32)[:, None, None]
    if operator == 'freeze':
        # Twice the distance, plus one for a later segment, so that there are no ties.
        steps = jnp.arange(t)[None, :] - jnp.arange(t)[:, None]
        far = 2 * jnp.abs(steps) + (steps > 0)
        far = jnp.where(keep_thw[None], far[..., None, None], 4 * t)
        return jnp.where(keep_thw.any(axis=0), jnp.argmin(far, axis=1).astype(jnp.int32), 2 * t)
    return jnp.where(keep_thw, own, t + own if operator == 'blur' else 2 * t)


def assemble(pictures: jax.Array, source_nhw: jax.Array) -> jax.Array:
    """Returns frames [n H W 3] whose cell (h, w) comes from picture `source_nhw` of `pictures` [. H W 3]."""
    height, width, channels = pictures.shape[1:]
    n, h, w = source_nhw.shape
    patches = pictures.reshape(-1, h, height // h, w, width // w, channels).swapaxes(2, 3)
    chosen = patches[source_nhw, jnp.arange(h)[:, None], jnp.arange(w)]
    return chosen.swapaxes(2, 3).reshape(n, height, width, channels)


def _gaussian(side: int) -> np.ndarray:
    """Returns a Gaussian blur along one axis as a matrix, float32 [side side].

    At the border the weights inside the picture are normalised to sum to 1.
    """
    place = np.arange(side)
    weights = np.exp(-0.5 * ((place[:, None] - place) / (side / 8)) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

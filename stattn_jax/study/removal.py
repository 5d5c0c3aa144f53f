"""What a clip is like without some of its cells and some of its seconds of sound: removal at the input.

Each removal puts something else in the place of what goes, and what that is decides what a network makes of it; so a
study asks with several (PAIRS) and says which. Sound goes before the log-mel front-end, since a zero in a log-mel is a
loud sound, and is made on the host; pictures in JAX, vmappable over clips and over what is kept. Segments are apart:
what becomes of one segment's sound changes no other's patch, so that one patch a segment is all there is to know. Read
next: perturb.py.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.data.mel import MelSpec, log_mel
from stattn_jax.study.clips import Clip

Picture = Literal['blur', 'mean', 'freeze']
PAIRS = (('blur', 'mute'), ('mean', 'noise'), ('freeze', 'mean'))
# In the setting 'feature' nothing is put in the place of what goes: the network's own masks take it away behind the
# trunks.
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
    """What takes the place of each segment's log-mel when its sound is removed: {operator: float32 [t f k]}.

    'mute': the segment is silent, after a raised-cosine fade of 15 ms at its beginning and before one at its end.
    'noise': stationary Gaussian noise with the mean spectrum of the quietest tenth of the clip's windows. 'mean':
    `mean_fk`, the training set's mean patch.

    Args:
      waveform: float [n], mono, at `mel.rate`, full scale 1; what is missing at its end is silence.
      seed: of the noise; give each clip its own.
    """
    edges = np.rint(np.arange(segments + 1) * (segment_seconds * mel.rate)).astype(int)
    waveform = waveform[: edges[-1]]
    muted = np.pad(waveform, (0, edges[-1] - len(waveform))) * _fades(edges, round(FADE_SECONDS * mel.rate))
    noise = _noise(quiet_spectrum(waveform, mel), edges[-1], mel, np.random.default_rng(seed))
    patches = {name: log_mel(x, mel, segments, segment_seconds) for name, x in (('mute', muted), ('noise', noise))}
    mean = np.broadcast_to(mean_fk, patches['mute'].shape)
    return {name: x.astype(np.float32) for name, x in (patches | {'mean': mean}).items()}


def quiet_spectrum(waveform: np.ndarray, mel: MelSpec) -> np.ndarray:
    """The power per sample and frequency, float64 [fft/2+1], mean over the quietest tenth of the front-end's windows.

    White noise of variance 1 has 1 everywhere.
    """
    hann = np.hanning(mel.window + 1)[:-1]  # of period `window`, as in data/mel.py
    windows = np.lib.stride_tricks.sliding_window_view(waveform, mel.window)[:: mel.hop] * hann
    power = np.abs(np.fft.rfft(windows, n=mel.fft)) ** 2
    quietest = np.argsort(power.sum(axis=1), kind='stable')[: max(1, round(QUIET_SHARE * len(power)))]
    return power[quietest].mean(axis=0) / (hann @ hann)


def _noise(spectrum, samples, mel, rng):
    """Gaussian noise of that spectrum, [samples]."""
    shaped = np.interp(np.fft.rfftfreq(samples), np.fft.rfftfreq(mel.fft), np.sqrt(spectrum))
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * shaped, samples)


def _fades(edges, samples):
    """The loudness of segments that are all muted, each within itself."""
    loudness = np.zeros(edges[-1])
    fall = 0.5 + 0.5 * np.cos(np.pi * (np.arange(samples) + 0.5) / samples)
    for first, end in zip(edges, edges[1:]):
        loudness[first : first + samples], loudness[end - samples : end] = fall, fall[::-1]
    return loudness


# ---------------------------------------------------------------------------------------------------------------------
# Picture
# ---------------------------------------------------------------------------------------------------------------------


def without(
    clip: Clip,
    absent_log_mel: jax.Array,
    keep_thw: jax.Array,
    keep_t: jax.Array,
    operator: Picture,
    mean_hw3: jax.Array,
) -> Clip:
    """One clip of which the cells `keep_thw` and the sounds `keep_t` (bool) are left; `absent_log_mel` [t f k] of
    `sound_absent`.
    """
    frames = picture_without(operator, clip.frames, keep_thw & clip.valid[:, None, None], mean_hw3)
    return Clip(frames, jnp.where(keep_t[:, None, None], clip.log_mel, absent_log_mel), clip.valid)


def picture_without(operator: Picture, frames: jax.Array, keep_thw: jax.Array, mean_hw3: jax.Array) -> jax.Array:
    """Frames [t H W 3] of one clip of which the cells `keep_thw` (bool) are left; H and W are multiples of h and w.

    'blur': the place of a removed cell shows the frame blurred by a Gaussian, whose deviation is an eighth of the side.
    'mean': the training set's mean picture `mean_hw3`, [H W 3]. 'freeze': the same place at the nearest segment that
    keeps it, the earlier of two; a cell kept nowhere shows the mean picture.
    """
    return assemble(bank(frames, mean_hw3), sources(operator, keep_thw))


def bank(frames: jax.Array, mean_hw3: jax.Array) -> jax.Array:
    """All that a cell can show, [2t+1 H W 3]: the frames, the frames blurred, the mean picture."""
    rows, columns = (_gaussian(side) for side in frames.shape[1:3])
    blurred = jnp.einsum('ij,tjkc,lk->tilc', rows, frames, columns, precision='highest')
    return jnp.concatenate([frames, blurred, mean_hw3[None]])


def sources(operator: Picture, keep_thw: jax.Array) -> jax.Array:
    """Which picture of the `bank` each cell shows, int32 [t h w]."""
    t = keep_thw.shape[0]
    own = jnp.arange(t, dtype=jnp.int32)[:, None, None]
    if operator == 'freeze':
        # Twice the distance, and one more to a later segment: no two segments are equally far.
        steps = jnp.arange(t)[None, :] - jnp.arange(t)[:, None]
        far = 2 * jnp.abs(steps) + (steps > 0)
        far = jnp.where(keep_thw[None], far[..., None, None], 4 * t)
        return jnp.where(keep_thw.any(axis=0), jnp.argmin(far, axis=1).astype(jnp.int32), 2 * t)
    return jnp.where(keep_thw, own, t + own if operator == 'blur' else 2 * t)


def assemble(pictures: jax.Array, source_nhw: jax.Array) -> jax.Array:
    """Frames [n H W 3] whose cell (h, w) is that of picture `source_nhw` of `pictures` [. H W 3]."""
    height, width, channels = pictures.shape[1:]
    n, h, w = source_nhw.shape
    patches = pictures.reshape(-1, h, height // h, w, width // w, channels).swapaxes(2, 3)
    chosen = patches[source_nhw, jnp.arange(h)[:, None], jnp.arange(w)]
    return chosen.swapaxes(2, 3).reshape(n, height, width, channels)


def _gaussian(side: int) -> np.ndarray:
    """A blur along one axis as a matrix, float32 [side side]; at the border the weights that lie inside sum to 1."""
    place = np.arange(side)
    weights = np.exp(-0.5 * ((place[:, None] - place) / (side / 8)) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

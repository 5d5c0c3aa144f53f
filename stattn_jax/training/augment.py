"""Augmentation on the device: one random crop, flip and colour shift a clip for its frames, SpecAugment for its log-mel.

Everything is drawn from the key given, so that a step stays a pure function of (state, batch); `axis` names the devices that share the
batch, whose clips are augmented as on one. Read next: draws.py, step.py.
"""

import dataclasses

import jax
import jax.numpy as jnp

from stattn_jax.training.draws import Rows


@dataclasses.dataclass(frozen=True)
class Augment:
    """How strongly to augment; the zero of each field (1 for `crop`) switches it off.

    crop: smallest side of the random crop as a share of the frame's. flip: probability of mirroring. colour: largest relative
    change of brightness, and a third of it as shift of each channel. mel_bands, mel_frames: largest width of the band and
    frame masks of SpecAugment (arXiv 1904.08779). mixup: alpha of the beta law (arXiv 1710.09412).
    """

    crop: float = 1.0
    flip: float = 0.0
    colour: float = 0.0
    mel_bands: int = 0
    mel_frames: int = 0
    mixup: float = 0.0


def augment_frames(key: jax.Array, frames: jax.Array, size: int, aug: Augment, axis: str | None = None) -> jax.Array:
    """frames [b t H W 3] in 0..1 -> [b t size size 3]; all segments of a clip share one crop, flip and colour."""
    b, _, height, width, _ = frames.shape
    clips = Rows(b, axis)
    if aug.crop < 1 or aug.flip or size != height:
        k_scale, k_y, k_x, k_flip = jax.random.split(key, 4)
        scale = clips.draw(jax.random.uniform, k_scale, minval=aug.crop, maxval=1.0)
        rows = _resample(clips.draw(jax.random.uniform, k_y) * (1 - scale), scale, height, size)
        columns = _resample(clips.draw(jax.random.uniform, k_x) * (1 - scale), scale, width, size)
        mirror = clips.draw(jax.random.bernoulli, k_flip, float(aug.flip))
        columns = jnp.where(mirror[:, None, None], columns[:, ::-1], columns)
        frames = jnp.einsum('byh,bthwr,bxw->btyxr', rows, frames, columns)
    if aug.colour:
        k_gain, k_shift = jax.random.split(jax.random.fold_in(key, 1))
        gain = clips.draw(jax.random.uniform, k_gain, shape=(1, 1, 1, 1), minval=1 - aug.colour, maxval=1 + aug.colour)
        shift = clips.draw(
            jax.random.uniform, k_shift, shape=(1, 1, 1, 3), minval=-aug.colour / 3, maxval=aug.colour / 3
        )
        frames = jnp.clip(frames * gain + shift, 0, 1)
    return frames


def resize_frames(frames: jax.Array, size: int) -> jax.Array:
    """The whole frame at `size` without augmentation: [b t H W 3] -> [b t size size 3]."""
    if frames.shape[2] == size:
        return frames
    rows = _resample(jnp.zeros(1), jnp.ones(1), frames.shape[2], size)[0]
    columns = _resample(jnp.zeros(1), jnp.ones(1), frames.shape[3], size)[0]
    return jnp.einsum('yh,bthwr,xw->btyxr', rows, frames, columns)


def augment_mel(key: jax.Array, log_mel: jax.Array, aug: Augment, axis: str | None = None) -> jax.Array:
    """SpecAugment without time warping: one band mask and one frame mask a segment, filled with the clip's mean: [b t f k]."""
    b, t, f, k = log_mel.shape
    keep, clips = jnp.ones((b, t, f, k), bool), Rows(b, axis)
    k_bands, k_frames = jax.random.split(key)
    if aug.mel_bands:
        keep &= _stripe(k_bands, clips, t, k, aug.mel_bands)[:, :, None, :]
    if aug.mel_frames:
        keep &= _stripe(k_frames, clips, t, f, aug.mel_frames)[:, :, :, None]
    return jnp.where(keep, log_mel, log_mel.mean((1, 2, 3), keepdims=True))


def mix(
    key: jax.Array, arrays: dict[str, jax.Array], others: dict[str, jax.Array], alpha: float, axis: str | None = None
) -> dict[str, jax.Array]:
    """Mixup: every array [b ...] with the same array of other clips by one share a clip."""
    b = next(iter(arrays.values())).shape[0]
    share = Rows(b, axis).draw(jax.random.beta, key, alpha, alpha)

    def blend(x, other):
        share_x = share.reshape((b,) + (1,) * (x.ndim - 1))
        return share_x * x + (1 - share_x) * other

    return jax.tree.map(blend, arrays, others)


def _stripe(key, clips, t, size, widest):
    """False on a stripe of random width 0..widest at a random place, for each segment: [b t size]."""
    k_width, k_first = jax.random.split(key)
    width = clips.draw(jax.random.randint, k_width, shape=(t,), minval=0, maxval=widest + 1)
    first = jnp.floor(clips.draw(jax.random.uniform, k_first, shape=(t,)) * (size - width + 1)).astype(int)
    at = jnp.arange(size)
    return (at < first[..., None]) | (at >= (first + width)[..., None])


def _resample(low, scale, source, target):
    """Anti-aliased linear resampling of source pixels in low..low+scale (0..1) as a matrix [b target source]."""
    centre = (low[:, None] + (jnp.arange(target) + 0.5) / target * scale[:, None]) * source - 0.5
    reach = jnp.maximum(1.0, scale * source / target)[:, None, None]
    weights = jnp.maximum(0, 1 - jnp.abs(centre[..., None] - jnp.arange(source)) / reach)
    return weights / weights.sum(-1, keepdims=True)

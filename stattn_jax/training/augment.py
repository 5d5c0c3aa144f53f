"""Augmentation on the device: crop, flip and colour shift of a clip's frames, and SpecAugment of its log-mel.

All random numbers come from the given key, so that a step stays a pure function of (state, batch). `axis` names the
devices that share the batch; the clips are augmented as they would be on one device.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from stattn_jax.training.sharded_random import ShardedRandom


@dataclasses.dataclass(frozen=True)
class Augment:
    """The strength of each augmentation; the value 0 (1 for `crop`) switches it off.

    crop: smallest side of the random crop as a fraction of the frame's side.
    flip: probability of mirroring.
    colour: largest relative change of brightness; a third of it is the largest shift of each channel.
    mel_bands, mel_frames: largest width of the band and frame masks of SpecAugment (arXiv 1904.08779).
    mel_shift: largest cyclic shift of a segment's log-mel, in frames.
    mel_gain: largest change of loudness, as the natural logarithm of the ratio of band energies.
    mel_background: largest fraction of another clip's audio that is added.
    feature_dropout: probability that a channel of a frame's extracted features is set to zero.
    mixup: alpha of the beta distribution (arXiv 1710.09412).
    """

    crop: float = 1.0
    flip: float = 0.0
    colour: float = 0.0
    mel_bands: int = 0
    mel_frames: int = 0
    mel_shift: int = 0
    mel_gain: float = 0.0
    mel_background: float = 0.0
    feature_dropout: float = 0.0
    mixup: float = 0.0


def augment_frames(key: jax.Array, frames: jax.Array, size: int, aug: Augment, axis: str | None = None) -> jax.Array:
    """Crops, flips, resizes and recolours frames [b t H W 3] in 0..1; returns [b t size size 3].

    All segments of a clip share one crop, one flip and one colour shift.
    """
    b, _, height, width, _ = frames.shape
    clips = ShardedRandom(b, axis)
    if aug.crop < 1 or aug.flip or size != height:
        # The four numbers of a clip are drawn together, which is one program instead of four.
        draws = jax.vmap(functools.partial(clips.sample, jax.random.uniform))(jax.random.split(key, 4))
        scale = jnp.maximum(aug.crop, draws[0] * (1 - jnp.float32(aug.crop)) + jnp.float32(aug.crop))
        rows = _resample(draws[1] * (1 - scale), scale, height, size)
        columns = _resample(draws[2] * (1 - scale), scale, width, size)
        mirror = draws[3] < aug.flip
        columns = jnp.where(mirror[:, None, None], columns[:, ::-1], columns)
        frames = jnp.einsum('byh,bthwr,bxw->btyxr', rows, frames, columns)
    if aug.colour:
        k_gain, k_shift = jax.random.split(jax.random.fold_in(key, 1))
        gain = clips.sample(
            jax.random.uniform, k_gain, shape=(1, 1, 1, 1), minval=1 - aug.colour, maxval=1 + aug.colour
        )
        shift = clips.sample(
            jax.random.uniform, k_shift, shape=(1, 1, 1, 3), minval=-aug.colour / 3, maxval=aug.colour / 3
        )
        frames = jnp.clip(frames * gain + shift, 0, 1)
    return frames


def resize_frames(frames: jax.Array, size: int) -> jax.Array:
    """Resizes the whole frame without augmentation: [b t H W 3] to [b t size size 3]."""
    if frames.shape[2] == size:
        return frames
    rows = _resample(jnp.zeros(1), jnp.ones(1), frames.shape[2], size)[0]
    columns = _resample(jnp.zeros(1), jnp.ones(1), frames.shape[3], size)[0]
    return jnp.einsum('yh,bthwr,xw->btyxr', rows, frames, columns)


def augment_mel(
    key: jax.Array,
    log_mel: jax.Array,
    aug: Augment,
    others: jax.Array,
    mel_log: tuple[float, float],
    axis: str | None = None,
) -> jax.Array:
    """Applies shift, loudness, background and SpecAugment's masks to log-mel [b t f k].

    SpecAugment is used without time warping: one band mask and one frame mask per segment, filled with the clip's mean.

    others: the log-mel of other clips [b t f k], which serves as background.
    mel_log: the front end's scale and offset, log-mel = scale * ln(energy + offset).
    """
    b, t, f, k = log_mel.shape
    clips = ShardedRandom(b, axis)
    k_bands, k_frames, k_shift, k_gain, k_background = jax.random.split(key, 5)
    if aug.mel_shift:
        shift = clips.sample(jax.random.randint, k_shift, shape=(t,), minval=-aug.mel_shift, maxval=aug.mel_shift + 1)
        at = (jnp.arange(f) - shift[..., None]) % f
        log_mel = jnp.take_along_axis(log_mel, at[..., None], axis=2)
    if aug.mel_gain or aug.mel_background:
        gain = clips.sample(jax.random.uniform, k_gain, shape=(1, 1, 1), minval=-aug.mel_gain, maxval=aug.mel_gain)
        mel = _energy(log_mel, *mel_log)
        if aug.mel_background:
            share = clips.sample(jax.random.uniform, k_background, shape=(t, 1, 1), maxval=aug.mel_background)
            mel += share * _energy(others, *mel_log)
        log_mel = mel_log[0] * jnp.log(jnp.exp(gain) * mel + mel_log[1])
    keep = jnp.ones((b, t, f, k), bool)
    if aug.mel_bands:
        keep &= _stripe(k_bands, clips, t, k, aug.mel_bands)[:, :, None, :]
    if aug.mel_frames:
        keep &= _stripe(k_frames, clips, t, f, aug.mel_frames)[:, :, :, None]
    return jnp.where(keep, log_mel, log_mel.mean((1, 2, 3), keepdims=True))


def _energy(log_mel, scale, offset):
    return jnp.maximum(jnp.exp(log_mel / scale) - offset, 0.0)


def augment_features(key: jax.Array, cells: jax.Array, aug: Augment, axis: str | None = None) -> jax.Array:
    """Sets channels of each frame's features [b t h w d] to zero, the same in all cells, and scales up the others.

    The features of a frozen trunk distinguish the training frames from each other; without this dropout, the per-cell
    classifier memorises them (docs/log.md, 2026-11-27).
    """
    if not aug.feature_dropout:
        return cells
    b, t, *_, d = cells.shape
    keep = ShardedRandom(b, axis).sample(jax.random.bernoulli, key, 1 - aug.feature_dropout, shape=(t, 1, 1, d))
    return cells * keep / (1 - aug.feature_dropout)


def mix(
    key: jax.Array,
    arrays: dict[str, jax.Array],
    others: dict[str, jax.Array],
    alpha: float,
    axis: str | None = None,
    alike_b: jax.Array | bool = True,
) -> dict[str, jax.Array]:
    """Mixup: blends every array [b ...] with the same array of other clips, in one random proportion per clip.

    `alike_b` is False for clips that stay as they are, because they and the other clip have different modalities.
    """
    b = next(iter(arrays.values())).shape[0]
    share = jnp.where(alike_b, ShardedRandom(b, axis).sample(jax.random.beta, key, alpha, alpha), 1.0)

    def blend(x, other):
        share_x = share.reshape((b,) + (1,) * (x.ndim - 1))
        return share_x * x + (1 - share_x) * other

    return jax.tree.map(blend, arrays, others)


def _stripe(key, clips, t, size, widest):
    """Returns bool [b t size]: False on one random stripe of width 0..widest in each segment."""
    k_width, k_first = jax.random.split(key)
    width = clips.sample(jax.random.randint, k_width, shape=(t,), minval=0, maxval=widest + 1)
    first = jnp.floor(clips.sample(jax.random.uniform, k_first, shape=(t,)) * (size - width + 1)).astype(int)
    at = jnp.arange(size)
    return (at < first[..., None]) | (at >= (first + width)[..., None])


def _resample(low, scale, source, target):
    """Returns the matrix [b target source] of an anti-aliased linear resampling.

    The target pixels cover the range low..low+scale of the source, whose whole extent is 0..1.
    """
    centre = (low[:, None] + (jnp.arange(target) + 0.5) / target * scale[:, None]) * source - 0.5
    reach = jnp.maximum(1.0, scale * source / target)[:, None, None]
    weights = jnp.maximum(0, 1 - jnp.abs(centre[..., None] - jnp.arange(source)) / reach)
    return weights / weights.sum(-1, keepdims=True)

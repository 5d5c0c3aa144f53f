"""The first part of every network: a frame trunk and a log-mel trunk, each followed by a layer to a common width.

A trunk may be frozen: it then has no gradients, its batch normalisation keeps its statistics, and a small trained layer
(`Precomputed`) follows it. The features of a frozen trunk may have been computed before (data_prep/extract.py); they
then replace the trunk's input.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.trunks import registry
from stattn_jax.models.trunks.precomputed import FeatureAudio, Precomputed

PRECOMPUTED = 'precomputed'


class Frozen(nnx.Variable):
    """A parameter of a frozen trunk. It is in the state, but neither in the gradient nor in the optimiser's state."""


class Encoders(nnx.Module):
    """Maps frames to cells and log-mel to segments; subclasses compute the logits from these in `forward_heads`.

    A network with `uses_video` or `uses_audio` False has no visual or no audio trunk.

    channels: numbers per pixel (or feature cell), and per log-mel value (or audio feature frame), as in the data's
      spec.
    visual, audio: names in trunks/registry.py, or 'precomputed' for features of a network outside this package.
    visual_frozen, audio_frozen: whether the trunk keeps its weights.
    extracted: for frames and for log_mel, whether they are the output of the frozen trunk instead of its input.
    width: numbers per cell (after `value`) and per segment.
    """

    uses_video = uses_audio = True
    extracted = (False, False)

    def __init__(
        self,
        *,
        channels: tuple[int, int] = (3, 1),
        visual: str = 'tiny',
        audio: str = 'tiny',
        visual_frozen: bool = False,
        audio_frozen: bool = False,
        extracted: tuple[bool, bool] = (False, False),
        width: int = 128,
        dtype: str = 'float32',
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.dtype = jnp.dtype(dtype)
        self.extracted = extracted
        self.frozen = (visual_frozen, audio_frozen)
        self.stride, self.visual_scale = _input_of('visual', visual)
        _, self.audio_scale = _input_of('audio', audio)
        options: dict[str, Any] = {'width': width, 'axis_name': axis_name, 'dtype': self.dtype, 'rngs': rngs}
        # Every attribute is assigned once, because NNX treats an attribute that was None as a constant.
        seen = _visual(visual, channels[0], visual_frozen, **options) if self.uses_video else (None, None)
        heard = _audio(audio, channels[1], audio_frozen, **options) if self.uses_audio else (None, None)
        self.visual, self.visual_layer = seen
        self.audio, self.audio_layer = heard
        self.cell_width = (seen[1] or seen[0]).width if self.uses_video else 0
        self.value = Linear(self.cell_width, width, rngs=rngs) if self.uses_video else None
        self.audio_out = Linear((heard[1] or heard[0]).width, width, rngs=rngs) if self.uses_audio else None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Returns the rows and columns of cells for frames, or extracted cells, of this height and width."""
        stride = 1 if self.extracted[0] else self.stride
        return -(-height // stride), -(-width // stride)

    def __call__(
        self,
        frames: jax.Array,
        log_mel: jax.Array,
        valid: jax.Array,
        *,
        train: bool,
        cell_mask: jax.Array | None = None,
        unit_mask: jax.Array | None = None,
        modalities: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps frames [b t H W 3] in 0..1, log_mel [b t f k] and valid bool [b t] to logits [b c] and `out`.

        Extracted features replace frames or log_mel. `cell_mask` bool [b t s] and `unit_mask` bool [b m t] are False
        for cells and (modality, segment) units to remove, for dropout in training and for what-if questions.
        `modalities` bool [b m] is False for a modality that a clip lacks: the logits do not depend on its input.
        """
        seen, heard = self.encode(frames, log_mel, train=train)
        masks = {'cell_mask': cell_mask, 'unit_mask': unit_mask, 'modalities': modalities}
        return self.forward_heads(seen, heard, valid, **masks)

    def encode(
        self, frames: jax.Array, log_mel: jax.Array, *, train: bool
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Encodes each segment independently: cells [b t s d'] and audio [b t d], None for an unused modality."""
        with jax.named_scope('visual'):
            seen = self.cells(frames, train=train) if self.uses_video else None
        with jax.named_scope('audio'):
            return seen, self.sound(log_mel, train=train) if self.uses_audio else None

    def forward_heads(
        self,
        seen: jax.Array | None,
        heard: jax.Array | None,
        valid: jax.Array,
        *,
        cell_mask: jax.Array | None = None,
        unit_mask: jax.Array | None = None,
        modalities: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Computes logits [b c] and `out` from the result of `encode`; only here do segments affect each other."""
        raise NotImplementedError

    def cells(self, frames: jax.Array, *, train: bool) -> jax.Array:
        """Maps frames [b t H W 3] in 0..1 to cells [b t s d'] of the trunk's width and dtype; `value` maps d' to d."""
        b, t = frames.shape[:2]
        x = frames.reshape(b * t, *frames.shape[2:])
        if not self.extracted[0]:
            x = self.visual_features(x, train=train)
        if self.visual_layer is not None:
            x = self.visual_layer(x.astype(self.dtype), train=train)
        return x.reshape(b, t, -1, x.shape[-1])

    def visual_features(self, frames: jax.Array, *, train: bool) -> jax.Array:
        """Returns the frame trunk's output [n h w d] for frames [n H W 3] in 0..1.

        For a frozen trunk, data_prep/extract.py stores this output.
        """
        x = frames if self.visual_scale is None else _scaled(frames, *self.visual_scale)
        return self.visual(x.astype(jnp.float32 if self.frozen[0] else self.dtype), train=train and not self.frozen[0])

    def sound(self, log_mel: jax.Array, *, train: bool) -> jax.Array:
        """Maps log_mel [b t f k] to [b t d] in float32, each segment independently."""
        b, t = log_mel.shape[:2]
        x = log_mel.reshape(b * t, *log_mel.shape[2:])
        # Extracted features have one frame per segment, [n 1 d].
        x = x[:, 0] if self.extracted[1] else self.audio_features(x, train=train)
        if self.audio_layer is not None:
            x = self.audio_layer(x.astype(self.dtype), train=train)
        return self.audio_out(x.astype(jnp.float32)).reshape(b, t, -1)

    def audio_features(self, log_mel: jax.Array, *, train: bool) -> jax.Array:
        """Returns the log-mel trunk's output [n d] for segments [n f k].

        For a frozen trunk, data_prep/extract.py stores this output.
        """
        x = log_mel if self.audio_scale is None else _scaled(log_mel, *self.audio_scale)
        return self.audio(x.astype(jnp.float32 if self.frozen[1] else self.dtype), train=train and not self.frozen[1])


def _input_of(modality, name):
    """Returns the side of a cell in pixels, and the mean and deviation of the trunk's input (None for features)."""
    if name == PRECOMPUTED:
        return 1, None
    trunk = registry.find(modality, name)
    return trunk.stride, (trunk.mean, trunk.std)


def _visual(name, channels, frozen, **options) -> tuple[Any, Any]:
    return (
        (Precomputed(channels, **options), None) if name == PRECOMPUTED else _trunk('visual', name, frozen, **options)
    )


def _audio(name, channels, frozen, **options) -> tuple[Any, Any]:
    return (
        (FeatureAudio(channels, **options), None) if name == PRECOMPUTED else _trunk('audio', name, frozen, **options)
    )


def _trunk(modality, name, frozen, *, width, **options) -> tuple[Any, Any]:
    """Returns the trunk and, if it is frozen, the trained layer that follows it (else None)."""
    entry = registry.find(modality, name)
    if not frozen:
        return entry.build(**options), None
    # float32 as in data_prep/extract.py, so that extracted features and frames give the same results.
    trunk = entry.build(**options | {'dtype': jnp.dtype('float32')})
    _freeze(trunk)
    return trunk, Precomputed(trunk.width, width, **options)


def _scaled(x, mean, std):
    return (x - jnp.asarray(mean)) / jnp.asarray(std)


def _freeze(trunk: nnx.Module) -> None:
    """Turns a trunk's parameters into `Frozen` variables, which optimisers ignore."""
    for _, module in nnx.iter_modules(trunk):
        for name, value in vars(module).items():
            if isinstance(value, nnx.Param):
                setattr(module, name, Frozen(value.get_value()))

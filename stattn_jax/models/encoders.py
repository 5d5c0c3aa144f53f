"""What every network here begins with: a frame trunk, a log-mel trunk, and a layer to one width behind each.

A trunk may be frozen: then it has no gradients, its batch normalisation keeps its statistics, and a small trained layer
(`Precomputed`) follows it. A frozen trunk may have run already (data_prep/extract.py): then its features take the place
of its input.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.dense import Linear
from stattn_jax.models.trunks import registry
from stattn_jax.models.trunks.precomputed import FeatureAudio, Precomputed

PRECOMPUTED = 'precomputed'


class Frozen(nnx.Variable):
    """A parameter of a frozen trunk: part of the state, but neither of the gradient nor of the optimiser's state."""


class Encoders(nnx.Module):
    """Frames to cells and log-mel to segments, both of `width` numbers; a network that does not see or hear lacks that
    half.

    channels: numbers in a pixel (or feature cell) and in a cell (or feature frame) of the sound, as the data's spec has
      them.
    visual, audio: names of trunks/registry.py, or 'precomputed' for features of a network that is not here.
    visual_frozen, audio_frozen: whether the trunk keeps its weights.
    extracted: whether frames and log_mel are the output of the frozen trunk rather than its input.
    """

    sees = hears = True
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
        options = {'width': width, 'axis_name': axis_name, 'dtype': self.dtype, 'rngs': rngs}
        # Nothing is assigned twice: NNX takes what was None for a constant.
        seen = _visual(visual, channels[0], visual_frozen, **options) if self.sees else (None, None)
        heard = _audio(audio, channels[1], audio_frozen, **options) if self.hears else (None, None)
        self.visual, self.visual_layer = seen
        self.audio, self.audio_layer = heard
        self.cell_width = (seen[1] or seen[0]).width if self.sees else 0
        self.value = Linear(self.cell_width, width, rngs=rngs) if self.sees else None
        self.audio_out = Linear((heard[1] or heard[0]).width, width, rngs=rngs) if self.hears else None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells that frames of this size, or extracted cells, give."""
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
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """frames [b t H W 3] in 0..1, log_mel [b t f k], valid bool [b t] -> logits [b c], out; features take their
        places.

        `cell_mask` bool [b t s] and `unit_mask` bool [b m t] take cells and (modality, segment) units away, in training
        (dropout) as in a what-if question.
        """
        seen, heard = self.read(frames, log_mel, train=train)
        return self.decide(seen, heard, valid, cell_mask=cell_mask, unit_mask=unit_mask)

    def read(self, frames: jax.Array, log_mel: jax.Array, *, train: bool) -> tuple[jax.Array | None, jax.Array | None]:
        """What the trunks make of each segment, by itself: cells [b t s d'] and sound [b t d]; None for what is not
        looked at.
        """
        with jax.named_scope('visual'):
            seen = self.cells(frames, train=train) if self.sees else None
        with jax.named_scope('audio'):
            return seen, self.sound(log_mel, train=train) if self.hears else None

    def decide(
        self,
        seen: jax.Array | None,
        heard: jax.Array | None,
        valid: jax.Array,
        *,
        cell_mask: jax.Array | None = None,
        unit_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits [b c] and out from what `read` gave; everything that segments have to do with each other happens
        here.
        """
        raise NotImplementedError

    def cells(self, frames: jax.Array, *, train: bool) -> jax.Array:
        """frames [b t H W 3] in 0..1 -> [b t s d'] of the trunk's own width and dtype; `value` makes them [b t s d]."""
        b, t = frames.shape[:2]
        x = frames.reshape(b * t, *frames.shape[2:])
        if not self.extracted[0]:
            x = self.visual_features(x, train=train)
        if self.visual_layer is not None:
            x = self.visual_layer(x.astype(self.dtype), train=train)
        return x.reshape(b, t, -1, x.shape[-1])

    def visual_features(self, frames: jax.Array, *, train: bool) -> jax.Array:
        """What the frame trunk makes of frames [n H W 3] in 0..1: [n h w d]; of a frozen trunk, what
        data_prep/extract.py stores.
        """
        x = frames if self.visual_scale is None else _scaled(frames, *self.visual_scale)
        return self.visual(x.astype(jnp.float32 if self.frozen[0] else self.dtype), train=train and not self.frozen[0])

    def sound(self, log_mel: jax.Array, *, train: bool) -> jax.Array:
        """log_mel [b t f k] -> [b t d] in float32; segments do not depend on each other."""
        b, t = log_mel.shape[:2]
        x = log_mel.reshape(b * t, *log_mel.shape[2:])
        # The features of a segment come as one frame, [n 1 d].
        x = x[:, 0] if self.extracted[1] else self.audio_features(x, train=train)
        if self.audio_layer is not None:
            x = self.audio_layer(x.astype(self.dtype), train=train)
        return self.audio_out(x.astype(jnp.float32)).reshape(b, t, -1)

    def audio_features(self, log_mel: jax.Array, *, train: bool) -> jax.Array:
        """What the log-mel trunk makes of segments [n f k]: [n d]; of a frozen trunk, what data_prep/extract.py
        stores.
        """
        x = log_mel if self.audio_scale is None else _scaled(log_mel, *self.audio_scale)
        return self.audio(x.astype(jnp.float32 if self.frozen[1] else self.dtype), train=train and not self.frozen[1])


def _input_of(modality, name):
    """Pixels of a cell's side, and the mean and deviation of a trunk's input (None for features)."""
    if name == PRECOMPUTED:
        return 1, None
    trunk = registry.find(modality, name)
    return trunk.stride, (trunk.mean, trunk.std)


def _visual(name, channels, frozen, **options):
    return (
        (Precomputed(channels, **options), None) if name == PRECOMPUTED else _trunk('visual', name, frozen, **options)
    )


def _audio(name, channels, frozen, **options):
    return (
        (FeatureAudio(channels, **options), None) if name == PRECOMPUTED else _trunk('audio', name, frozen, **options)
    )


def _trunk(modality, name, frozen, *, width, **options):
    """The trunk and, where it is frozen, the layer that is trained behind it."""
    entry = registry.find(modality, name)
    if not frozen:
        return entry.build(**options), None
    # As data_prep/extract.py runs it, so that features and pictures give the same numbers.
    trunk = entry.build(**options | {'dtype': jnp.dtype('float32')})
    _freeze(trunk)
    return trunk, Precomputed(trunk.width, width, **options)


def _scaled(x, mean, std):
    return (x - jnp.asarray(mean)) / jnp.asarray(std)


def _freeze(trunk: nnx.Module) -> None:
    """Turns a trunk's parameters to `Frozen`, which no optimiser sees."""
    for _, module in nnx.iter_modules(trunk):
        for name, value in vars(module).items():
            if isinstance(value, nnx.Param):
                setattr(module, name, Frozen(value.get_value()))

"""What every network here begins with: a frame trunk, a log-mel trunk, and a layer to one width behind each. Read next: stan.py."""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.audio import make_audio
from stattn_jax.models.dense import Linear
from stattn_jax.models.visual import make_visual, normalise

# Fixed shift and scale of log(mel + 0.01), whose silence is -4.6 and whose loud bands reach 3.
MEL_SHIFT, MEL_SCALE = -3.0, 2.0


class Trunks(nnx.Module):
    """Frames to cells and log-mel to segments, both of `width` numbers; a network that does not see or hear lacks that half.

    `channels`: numbers in a pixel (or feature cell) and in a cell (or feature frame) of the sound, as the data's spec has them.
    """

    sees = hears = True

    def __init__(
        self,
        *,
        channels: tuple[int, int] = (3, 1),
        visual: str = 'tiny',
        audio: str = 'tiny',
        width: int = 128,
        dtype: str = 'float32',
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.dtype = jnp.dtype(dtype)
        self.normalised = (visual != 'precomputed', audio != 'precomputed')
        options = {'width': width, 'axis_name': axis_name, 'dtype': self.dtype, 'rngs': rngs}
        seen = make_visual(visual, inputs=channels[0], **options)
        self.stride = seen.stride
        self.visual = seen if self.sees else None
        self.audio = make_audio(audio, inputs=channels[1], **options) if self.hears else None
        self.value = Linear(self.visual.width, width, rngs=rngs) if self.sees else None
        self.audio_out = Linear(self.audio.width, width, rngs=rngs) if self.hears else None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells that frames of this size give."""
        return -(-height // self.stride), -(-width // self.stride)

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
        """frames [b t H W 3] in 0..1, log_mel [b t f k], valid bool [b t] -> logits [b c], out; features take their places.

        `cell_mask` bool [b t s] and `unit_mask` bool [b m t] take cells and (modality, segment) units away, in training (dropout)
        as in a what-if question.
        """
        seen, heard = self.read(frames, log_mel, train=train)
        return self.decide(seen, heard, valid, cell_mask=cell_mask, unit_mask=unit_mask)

    def read(self, frames: jax.Array, log_mel: jax.Array, *, train: bool) -> tuple[jax.Array | None, jax.Array | None]:
        """What the trunks make of each segment, by itself: cells [b t s d'] and sound [b t d]; None for what is not looked at."""
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
        """Logits [b c] and out from what `read` gave; everything that segments have to do with each other happens here."""
        raise NotImplementedError

    def cells(self, frames: jax.Array, *, train: bool) -> jax.Array:
        """frames [b t H W 3] in 0..1 -> [b t s d'] of the trunk's own width and dtype; `value` makes them [b t s d]."""
        b, t = frames.shape[:2]
        x = normalise(frames) if self.normalised[0] else frames
        x = x.reshape(b * t, *frames.shape[2:]).astype(self.dtype)
        cells = self.visual(x, train=train)
        return cells.reshape(b, t, -1, cells.shape[-1])

    def sound(self, log_mel: jax.Array, *, train: bool) -> jax.Array:
        """log_mel [b t f k] -> [b t d] in float32; segments do not depend on each other."""
        b, t = log_mel.shape[:2]
        x = (log_mel - MEL_SHIFT) / MEL_SCALE if self.normalised[1] else log_mel
        x = x.reshape(b * t, *log_mel.shape[2:]).astype(self.dtype)
        return self.audio_out(self.audio(x, train=train).astype(jnp.float32)).reshape(b, t, -1)

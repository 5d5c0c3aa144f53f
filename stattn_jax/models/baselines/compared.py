"""The base class of the compared models, with masking and an interface for the maps that they provide.

The models have the trunks, inputs and masks of STAN and return (logits, out).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.encoders import Encoders
from stattn_jax.models.pooling import mean_among

Out = dict[str, jax.Array]
Maps = tuple[jax.Array | None, jax.Array | None]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The number of classes, the widths of trunk outputs and hidden layers, and the height and width of a frame."""

    classes: int
    width: int
    hidden: int
    frame: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The input of `classify` after masking, in float32.

    values [b t s d] and audio [b t d] are zero where they are masked out. cells bool [b t s] and units bool [b m t] are
    True where something remains; a cell remains only if the visual unit of its segment does.
    """

    values: jax.Array | None
    audio: jax.Array | None
    cells: jax.Array | None
    units: jax.Array

    @property
    def picture(self) -> jax.Array:
        """The mean of the remaining cells, [b t d]; 0 where none remains."""
        return mean_among(self.values, self.cells, axis=2)

    @property
    def segments(self) -> jax.Array:
        """Whether at least one modality of the segment remains, bool [b t]."""
        return self.units.any(axis=1)


class Compared(Encoders):
    """A network whose logits are not a sum of contributions; subclasses compute them in `classify`."""

    additive = False
    # Whether the spatial map of `maps` can only be compared within a frame.
    where_by_frame = False

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(width=sizes.width, rngs=rngs, **trunks)

    def forward_heads(
        self,
        seen: jax.Array | None,
        heard: jax.Array | None,
        valid: jax.Array,
        *,
        cell_mask: jax.Array | None = None,
        unit_mask: jax.Array | None = None,
        modalities: jax.Array | None = None,
    ) -> tuple[jax.Array, Out]:
        """Returns logits [b c] and the arrays for `maps`; the masks work as in models/stan.py."""
        b, t = valid.shape
        units = jnp.broadcast_to(valid[:, None], (b, 2, t))
        units = units if unit_mask is None else units & unit_mask
        units = units if modalities is None else units & modalities[:, :, None]
        values = audio = cells = None
        if self.uses_video:
            values = self.value(seen.astype(jnp.float32))
            cells = jnp.broadcast_to(units[:, 0, :, None], values.shape[:3])
            cells = cells if cell_mask is None else cells & cell_mask
            values = jnp.where(cells[..., None], values, 0.0)
        if self.uses_audio:
            audio = jnp.where(units[:, 1, :, None], heard, 0.0)
        return self.classify(Evidence(values, audio, cells, units))

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        """Returns logits [b c] and the arrays for `maps`, each with b as its first axis."""
        raise NotImplementedError

    def maps(self, out: Out, classes_b: jax.Array) -> Maps:
        """Returns the model's own maps for one class per clip: where [b t s] and when [b t], or None if it has none.

        Larger numbers mean more evidence. They can be compared within a clip only, and have no meaning at segments that
        are not valid.
        """
        del out, classes_b
        return None, None


def of_class(x: jax.Array, classes_b: jax.Array) -> jax.Array:
    """Selects one class per clip from x [b ... c]: [b ...]."""
    return jnp.take_along_axis(x, classes_b.reshape(-1, *(1,) * (x.ndim - 1)), axis=-1)[..., 0]

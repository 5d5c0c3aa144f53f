"""What compared models share: the trunks of Stan before them, one way to take units away, one way to show what they
show.

They get what Stan gets (same trunks, inputs, masks) and give (logits, out). Read next: fusion.py, intrinsic.py,
avel.py, han.py.
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
    """Numbers of classes, of the trunks' outputs, of hidden layers, and of cells in a frame."""

    classes: int
    width: int
    hidden: int
    frame: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a clip offers: values [b t s d] and audio [b t d] in float32, zero where taken away; cells bool [b t s] and
    units bool [b m t] that are left, a cell only where its picture is.
    """

    values: jax.Array | None
    audio: jax.Array | None
    cells: jax.Array | None
    units: jax.Array

    @property
    def picture(self) -> jax.Array:
        """The mean of the cells that are left, [b t d]; 0 where none is."""
        return mean_among(self.values, self.cells, axis=2)

    @property
    def segments(self) -> jax.Array:
        """Segments of which something is left, bool [b t]."""
        return self.units.any(axis=1)


class Compared(Encoders):
    """A network that says its logits without being a sum of terms; subclasses say how in `classify`."""

    additive = False
    # Whether what `maps` says of places compares within a frame alone.
    where_by_frame = False

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(width=sizes.width, rngs=rngs, **trunks)

    def decide(
        self,
        seen: jax.Array | None,
        heard: jax.Array | None,
        valid: jax.Array,
        *,
        cell_mask: jax.Array | None = None,
        unit_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Out]:
        """Logits [b c], and what `maps` needs; the masks take away as in models/stan.py."""
        b, t = valid.shape
        units = jnp.broadcast_to(valid[:, None], (b, 2, t))
        units = units if unit_mask is None else units & unit_mask
        values = audio = cells = None
        if self.sees:
            values = self.value(seen.astype(jnp.float32))
            cells = jnp.broadcast_to(units[:, 0, :, None], values.shape[:3])
            cells = cells if cell_mask is None else cells & cell_mask
            values = jnp.where(cells[..., None], values, 0.0)
        if self.hears:
            audio = jnp.where(units[:, 1, :, None], heard, 0.0)
        return self.classify(Evidence(values, audio, cells, units))

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        """Logits [b c], and what `maps` needs, each with b first."""
        raise NotImplementedError

    def maps(self, out: Out, classes_b: jax.Array) -> Maps:
        """What this model itself shows for a class of each clip: where [b t s] and when [b t]; None for what it does
        not show.

        Larger is more; the numbers compare within a clip alone, and mean nothing at segments that are not valid.
        """
        del out, classes_b
        return None, None


def of_class(x: jax.Array, classes_b: jax.Array) -> jax.Array:
    """The class of each clip from x [b ... c]: [b ...]."""
    return jnp.take_along_axis(x, classes_b.reshape(-1, *(1,) * (x.ndim - 1)), axis=-1)[..., 0]

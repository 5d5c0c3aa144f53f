"""Random numbers for the clips of a batch that do not depend on how many devices share the batch."""

import dataclasses
from collections.abc import Callable

import jax


@dataclasses.dataclass(frozen=True)
class ShardedRandom:
    """The `count` rows of the global batch that a device of `axis` holds; all rows where `axis` is None."""

    count: int
    axis: str | None = None

    def sample(self, sampler: Callable, key: jax.Array, *args, shape: tuple[int, ...] = (), **options) -> jax.Array:
        """Samples random numbers for these rows with a `sampler` of jax.random: [count *shape].

        The sampler is called as sampler(key, *args, shape=...). Each device samples for the whole batch, which is cheap
        compared with processing a clip, and keeps its own rows.
        """
        if self.axis is None:
            return sampler(key, *args, shape=(self.count, *shape), **options)
        everyone = sampler(key, *args, shape=(self.count * jax.lax.axis_size(self.axis), *shape), **options)
        return jax.lax.dynamic_slice_in_dim(everyone, jax.lax.axis_index(self.axis) * self.count, self.count)

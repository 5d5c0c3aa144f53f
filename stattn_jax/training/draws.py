"""Random numbers of clips that do not depend on how many devices share the batch. Read next: augment.py, step.py."""

import dataclasses
from collections.abc import Callable

import jax


@dataclasses.dataclass(frozen=True)
class Rows:
    """The `count` rows of the global batch that a device of `axis` holds; all of it where `axis` is None."""

    count: int
    axis: str | None = None

    def draw(self, sampler: Callable, key: jax.Array, *args, shape: tuple[int, ...] = (), **options) -> jax.Array:
        """What `sampler` of jax.random, called as sampler(key, *args, shape=...), draws for these rows: [count *shape].

        Each device draws for the whole batch, which is little beside what a clip costs, and keeps its own.
        """
        if self.axis is None:
            return sampler(key, *args, shape=(self.count, *shape), **options)
        everyone = sampler(key, *args, shape=(self.count * jax.lax.axis_size(self.axis), *shape), **options)
        return jax.lax.dynamic_slice_in_dim(everyone, jax.lax.axis_index(self.axis) * self.count, self.count)

"""The dense layer."""

import jax
from flax import nnx

from stattn_jax.models.layers import cpu, form_of_platform


class Linear(nnx.Linear):
    """nnx.Linear, [... d] -> [... e]."""

    def __init__(self, inputs: int, outputs: int, **options):
        super().__init__(inputs, outputs, **options)
        self.form = form_of_platform()

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # There is no out_sharding.
        if self.form in ('plain', 'tpu'):
            return super().__call__(x)
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = self.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        return cpu.dense(x, kernel, bias)

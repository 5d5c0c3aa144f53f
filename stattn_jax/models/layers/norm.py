"""Batch normalisation over one or many devices."""

import functools

import jax
from flax import nnx

from stattn_jax.models.layers import cpu, form_of_platform, gpu, tpu
from stattn_jax.models.layers.arithmetic import scaled


class BatchNorm(nnx.BatchNorm):
    """nnx.BatchNorm over all axes but the last, computed in float32.

    The variance is the mean square distance from the mean or from a value of the input, never E[x^2] - E[x]^2, because
    log-mel has mean >> deviation.
    """

    def __init__(self, width: int, **options):
        super().__init__(width, use_fast_variance=False, **options)
        self.form = form_of_platform()

    def __call__(  # type: ignore[override]  # There is no mask, and use_running_average has no default.
        self, x: jax.Array, use_running_average: bool
    ) -> jax.Array:
        if self.form == 'plain':
            return super().__call__(x, use_running_average=use_running_average)
        scale, bias = self.scale[...], self.bias[...]
        if use_running_average:
            y = scaled(x, self.mean[...], jax.lax.rsqrt(self.var[...] + self.epsilon), scale, bias)
            return y.astype(self.dtype)
        normalise = {'cpu': cpu, 'gpu': gpu, 'tpu': tpu}[self.form].normalise
        y, mean, var = normalise(x.astype(self.dtype), scale, bias, self.epsilon, self.axis_name)
        for running, now in ((self.mean, mean), (self.var, var)):
            running[...] = self.momentum * running[...] + (1 - self.momentum) * now
        return y


def make_norm(axis_name: str | None, dtype, epsilon: float = 1e-5):
    """Returns a constructor, called with the width, of batch normalisation over all devices of `axis_name`."""
    return functools.partial(BatchNorm, momentum=0.9, epsilon=epsilon, axis_name=axis_name, dtype=dtype)

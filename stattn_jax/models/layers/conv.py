"""Convolutions with square kernels, and max pooling."""

import jax
from flax import nnx

from stattn_jax.models.layers import cpu, form_of_platform, gpu


class Conv(nnx.Conv):
    """nnx.Conv with a square kernel, one stride and, by default, no bias: [b h w i] -> [b h' w' o].

    padding: the number of zeros on every side, or 'SAME'.
    """

    strides: int
    padding: int | str

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: int | str = 'SAME',
        use_bias: bool = False,
        dtype,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            inputs, outputs, (size, size), strides=stride, padding=padding, use_bias=use_bias, dtype=dtype, rngs=rngs
        )
        self.form = form_of_platform()

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # There is no out_sharding.
        few = self.strides == 2 and self.in_features <= gpu.FEW_CHANNELS
        if self.form in ('plain', 'tpu') or (self.form == 'gpu' and not few):
            return super().__call__(x)
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        if isinstance(self.padding, int):
            pads = [(self.padding, self.padding)] * 2
        else:
            pads = jax.lax.padtype_to_pads(x.shape[1:3], self.kernel_size, (self.strides, self.strides), self.padding)
        if self.form == 'cpu':
            y = cpu.convolve(cpu.stored(x, self.kernel[...]), kernel, self.strides, pads)
        else:
            y = gpu.convolve_by_blocks(x, kernel, pads)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class DepthwiseConv(nnx.Conv):
    """Convolves each channel with its own kernel, SAME padding, no bias: [b h w c] -> [b h/stride w/stride c]."""

    strides: int

    def __init__(self, channels: int, size: int, *, stride: int = 1, dtype, rngs: nnx.Rngs):
        super().__init__(
            channels,
            channels,
            (size, size),
            strides=stride,
            feature_group_count=channels,
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
        )
        self.form = form_of_platform()

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # There is no out_sharding.
        if self.form != 'cpu':
            return super().__call__(x)
        return cpu.convolve_depthwise(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.strides)


class MaxPool(nnx.Module):
    """Takes the maximum over 3x3 cells with stride 2 and padding 1: [b h w c] -> [b h' w' c].

    The gradient goes to the first of equal cells.
    """

    def __init__(self):
        self.form = form_of_platform()

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.form in ('plain', 'tpu'):
            return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        return cpu.max_pool(x) if self.form == 'cpu' else gpu.max_pool(x)

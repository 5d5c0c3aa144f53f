"""ResNet-18 and -50 (He et al., arXiv 1512.03385) without their pooling and classifier, as frame or log-mel trunks.

Layers have the order and shapes of the standard ImageNet layout, so that published weights map onto them by rule: layers/0/1/convs/0 is
its layer1.1.conv1 (tests/test_resnet.py, `standard_name`).
"""

import functools

import jax
from flax import nnx

from stattn_jax.models.conv import Conv, max_pool
from stattn_jax.models.norm import make_norm
from stattn_jax.models.trunks.registry import MEL_MEAN, MEL_STD, Trunk

STAGES = {'resnet18': ((2, 2, 2, 2), 1), 'resnet50': ((3, 4, 6, 3), 4)}


class Block(nnx.Module):
    """A basic (expansion 1) or bottleneck (expansion 4) residual block: [b h w i] -> [b h/stride w/stride width*expansion]."""

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
    """The convolutional part of a ResNet: [b h w i] -> [b h/32 w/32 width], width 512 (resnet18) or 2048 (resnet50)."""

    def __init__(self, name: str, *, inputs: int, axis_name: str | None, dtype, rngs: nnx.Rngs):
        depths, expansion = STAGES[name]
        norm = make_norm(axis_name, dtype)
        self.conv1 = Conv(inputs, 64, 7, stride=2, padding=3, dtype=dtype, rngs=rngs)
        self.bn1 = norm(64, rngs=rngs)
        self.width = 64
        stages = []
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 and stage > 0 else 1
                blocks.append(
                    Block(
                        self.width, 64 * 2**stage, stride=stride, expansion=expansion, norm=norm, dtype=dtype, rngs=rngs
                    )
                )
                self.width = 64 * 2**stage * expansion
            stages.append(nnx.List(blocks))
        self.layers = nnx.List(stages)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nnx.relu(self.bn1(self.conv1(x), use_running_average=not train))
        x = max_pool(x)
        for blocks in self.layers:
            for block in blocks:
                x = block(x, train=train)
        return x


class ResNetAudio(nnx.Module):
    """A ResNet on the log-mel patch as a one-channel picture, averaged over the patch: [b f k] -> [b width]."""

    def __init__(self, name: str, *, axis_name: str | None, dtype, rngs: nnx.Rngs):
        self.net = ResNet(name, inputs=1, axis_name=axis_name, dtype=dtype, rngs=rngs)
        self.width = self.net.width

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.net(x[..., None], train=train).mean((1, 2))


TRUNKS = {
    'visual': {
        name: Trunk('visual', functools.partial(ResNet, name, inputs=3), stride=32, frame_size=224) for name in STAGES
    },
    'audio': {'resnet18': Trunk('audio', functools.partial(ResNetAudio, 'resnet18'), mean=MEL_MEAN, std=MEL_STD)},
}

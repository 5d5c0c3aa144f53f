"""The frame and log-mel trunks of stattn_jax/models in PyTorch, with the same parameter names."""

import torch
from torch import nn
from torch.nn import functional

from stattn_jax.models.trunks import resnet, small

AUDIO_SIZES = ((1, 24, 8, 4), (24, 48, 3, 2), (48, 96, 3, 2))


class SameConv2d(nn.Conv2d):
    """A convolution with the padding of Flax's SAME, which puts the larger half at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b i H W] -> [b o ceil(H/stride) ceil(W/stride)]."""
        (top, bottom), (left, right) = (
            same_padding(*sizes) for sizes in zip(x.shape[2:], self.kernel_size, self.stride)
        )
        if top == bottom and left == right:
            return functional.conv2d(x, self.weight, stride=self.stride, padding=(top, left))
        return functional.conv2d(functional.pad(x, (left, right, top, bottom)), self.weight, stride=self.stride)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and after `size` pixels that make the output ceil(size/stride)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def norm(width: int) -> nn.BatchNorm2d:
    """Batch normalisation; Flax's momentum 0.9 is PyTorch's 0.1.

    The running variance is PyTorch's own, n/(n-1) times that of Flax.
    """
    return nn.BatchNorm2d(width, eps=1e-5, momentum=0.1)


class Convolutions(nn.Module):
    """Convolution, norm and ReLU for each of `sizes` (inputs, outputs, kernel, stride): [b i H W] -> [b o h w]."""

    def __init__(self, sizes):
        super().__init__()
        self.width = sizes[-1][1]
        self.convs = nn.ModuleList([SameConv2d(i, o, k, stride=s, bias=False) for i, o, k, s in sizes])
        self.bns = nn.ModuleList([norm(o) for _, o, _, _ in sizes])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns feature maps, in the dtype of the convolutions."""
        for conv, bn in zip(self.convs, self.bns):
            x = functional.relu(bn(conv(x)), inplace=True)
        return x


class Block(nn.Module):
    """A basic (expansion 1) or bottleneck (expansion 4) residual block, with its stride in the (first) 3 x 3.

    [b i h w] -> [b o h/stride w/stride].
    """

    def __init__(self, inputs: int, width: int, *, stride: int, expansion: int):
        super().__init__()
        outputs = width * expansion
        sizes = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        if expansion > 1:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.convs = nn.ModuleList([nn.Conv2d(i, o, k, stride=s, padding=k // 2, bias=False) for i, o, k, s in sizes])
        self.bns = nn.ModuleList([norm(o) for _, o, _, _ in sizes])
        shortcut = stride > 1 or inputs != outputs
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), norm(outputs)) if shortcut else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the block's output, after its last ReLU."""
        y = x
        for conv, bn in zip(self.convs[:-1], self.bns[:-1]):
            y = functional.relu(bn(conv(y)), inplace=True)
        y = self.bns[-1](self.convs[-1](y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """The convolutional part of a ResNet: [b i h w] -> [b width h/32 w/32]."""

    def __init__(self, name: str, *, inputs: int):
        super().__init__()
        depths, expansion = resnet.STAGES[name]
        self.conv1 = nn.Conv2d(inputs, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(64)
        self.width = 64
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 and stage > 0 else 1
                blocks.append(Block(self.width, 64 * 2**stage, stride=stride, expansion=expansion))
                self.width = 64 * 2**stage * expansion
            self.layers.append(nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last stage's feature maps."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for blocks in self.layers:
            x = blocks(x)
        return x


class TinyAudio(Convolutions):
    """Three strided convolutions, then the mean and the maximum over the patch: [b 1 f k] -> [b 192]."""

    def __init__(self):
        super().__init__(AUDIO_SIZES)
        self.width = 2 * AUDIO_SIZES[-1][1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns one vector per patch."""
        x = super().forward(x).flatten(2)
        # amax would share the gradient among equal values; with max, as in Flax, the first of them gets all of it.
        return torch.cat([x.mean(2), x.max(2).values], dim=-1)


class ResNetAudio(nn.Module):
    """A ResNet on the log-mel patch, averaged over the patch: [b 1 f k] -> [b width]."""

    def __init__(self, name: str):
        super().__init__()
        self.net = ResNet(name, inputs=1)
        self.width = self.net.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns one vector per patch."""
        return self.net(x).mean((2, 3))


def make_visual(name: str) -> nn.Module:
    """Builds the frame trunk called `name`: [b 3 H W] -> [b width h w]."""
    return Convolutions(small.SIZES[name]) if name in small.SIZES else ResNet(name, inputs=3)


def make_audio(name: str) -> nn.Module:
    """Builds the log-mel trunk called `name`: [b 1 f k] -> [b width]."""
    return TinyAudio() if name == 'tiny' else ResNetAudio(name)

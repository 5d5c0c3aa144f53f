"""Cnn14 of PANNs (Kong et al., arXiv 1912.10211) for 16 and 32 kHz, which maps a segment's log-mel to an embedding.

The embedding is the input of the published classifier. The dropout and SpecAugment of the published training are left
out.
"""

import jax
from flax import nnx

from stattn_jax.models.layers.conv import Conv
from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.layers.norm import make_norm
from stattn_jax.models.layers.recompute import run_block
from stattn_jax.models.pooling import largest
from stattn_jax.models.trunks.trunk import Published, Trunk

BANDS = 64
BLOCKS = 6
# Five poolings halve the number of frames, and at least one frame must be left.
LEAST_FRAMES = 2 ** (BLOCKS - 1)
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}


class Block(nnx.Module):
    """Two convolutions with batch normalisation and ReLU: [b h w i] -> [b h w o].

    halves: whether 2x2 mean pooling follows, which gives [b h/2 w/2 o].
    """

    def __init__(self, inputs: int, outputs: int, *, halves: bool, axis_name: str | None, dtype, rngs: nnx.Rngs):
        norm = make_norm(axis_name, dtype)
        self.halves = halves
        self.convs = nnx.List([Conv(i, outputs, 3, padding=1, dtype=dtype, rngs=rngs) for i in (inputs, outputs)])
        self.bns = nnx.List([norm(outputs, rngs=rngs) for _ in self.convs])

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for conv, bn in zip(self.convs, self.bns):
            x = nnx.relu(bn(conv(x), use_running_average=not train))
        return _halved(x) if self.halves else x


class Cnn14(nnx.Module):
    """Six blocks, the mean over bands, mean plus maximum over frames, and a dense layer: [b f 64] -> [b width].

    channels: output channels of the first block; each later block has twice as many as the one before.
    """

    remat = False

    def __init__(self, *, channels: int = 64, axis_name: str | None, dtype, rngs: nnx.Rngs):
        options = {'axis_name': axis_name, 'dtype': dtype, 'rngs': rngs}
        widths = [1, *(channels << i for i in range(BLOCKS))]
        self.width = widths[-1]
        self.bn0 = make_norm(axis_name, dtype)(BANDS, rngs=rngs)
        self.blocks = nnx.List([Block(i, o, halves=o < self.width, **options) for i, o in zip(widths[:-1], widths[1:])])
        self.fc1 = Linear(self.width, self.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        frames, bands = x.shape[1:]
        if bands != BANDS or frames < LEAST_FRAMES:
            raise ValueError(
                f'the audio trunks cnn14 take {LEAST_FRAMES} or more frames of {BANDS} bands, and segments here have '
                f'{frames} of {bands}; expected segments of at least 0.32 seconds with the front end panns_16k or '
                'panns_32k'
            )
        x = self.bn0(x, use_running_average=not train)[..., None]
        for block in self.blocks:
            x = run_block(block, x, self.remat, train=train)
        x = x.mean(2)
        return nnx.relu(self.fc1(largest(x, 1) + x.mean(1)))


def _halved(x: jax.Array) -> jax.Array:
    """Returns the mean of each 2x2 cells; an odd last row or column is left out."""
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    return x.mean((2, 4))


def published_name(path: str) -> str:
    """Maps 'blocks/0/convs/1/kernel' to 'conv_block1.conv2.weight', 'bn0/mean' to 'bn0.running_mean'."""
    *layer, leaf = path.split('/')
    if layer[0] == 'blocks':
        _, block, part, number = layer
        layer = [f'conv_block{int(block) + 1}', f'{part.removesuffix("s")}{int(number) + 1}']
    return '.'.join([*layer, _LEAVES[leaf]])


def _trunk(mel: str, file: str) -> Trunk:
    published = Published(
        name=published_name,
        dropped=(r'(spectrogram_extractor|logmel_extractor|fc_audioset)\..*',),
        source=f'{file} of Zenodo record 3987831, trained on AudioSet',
        licence='CC BY 4.0',
    )
    return Trunk('audio', Cnn14, mean=(0.0,), std=(1.0,), mel=mel, published=published)


TRUNKS = {
    'visual': {},
    'audio': {
        'cnn14_16k': _trunk('panns_16k', 'Cnn14_16k_mAP=0.438.pth'),
        'cnn14_32k': _trunk('panns_32k', 'Cnn14_mAP=0.431.pth'),
    },
}

"""The Audio Spectrogram Transformer, trunk 'ast': base384 with patches of 16 x 16 every 10 bands and frames.

Source: Gong et al., "AST: Audio Spectrogram Transformer", arXiv 2104.01778. Its layers are those of vit.py.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from stattn_jax.models.layers.recompute import run_block
from stattn_jax.models.trunks import vit, vit_names
from stattn_jax.models.trunks.trunk import Published, Trunk

WIDTH, HEADS = 768, 12
PATCH, STRIDE, BANDS = 16, 10, 128
# Numbers of patches along 128 bands and along 1024 frames.
GRID = (12, 101)


class AST(nnx.Module):
    """Maps log-mel [b f k] of 10 ms frames and 128 bands to [b 768], the mean of class and distillation tokens.

    The position embeddings are for 1024 frames, that is 101 patches in time. A shorter segment uses those at the middle
    of the time axis, as in the original repository; one second (98 to 100 frames) has 9 patches in time. The norms use
    the epsilon that the weights were trained with, 1e-6 (transformers: 1e-12). `depth` is 12 except in tests. The
    trunk computes the same in training and evaluation.
    """

    width = WIDTH
    remat = False

    def __init__(self, *, depth: int = vit.DEPTH, axis_name: str | None = None, dtype, rngs: nnx.Rngs):
        del axis_name  # no statistics of a batch
        self.dtype = jnp.dtype(dtype)
        self.patch_embed = SpectrogramPatches(dtype=dtype, rngs=rngs)
        self.cls_token = vit.small_normal(rngs, 1, 1, WIDTH)
        self.dist_token = vit.small_normal(rngs, 1, 1, WIDTH)
        self.pos_embed = vit.small_normal(rngs, 1, 2 + GRID[0] * GRID[1], WIDTH)
        self.blocks = nnx.List([vit.Block(WIDTH, HEADS, dtype=dtype, rngs=rngs) for _ in range(depth)])
        self.norm = vit.layer_norm(WIDTH, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        x = self.tokens(x.astype(self.dtype))
        for block in self.blocks:
            x = run_block(block, x, self.remat)
        return self.norm(x[:, :2]).mean(1)

    def tokens(self, x: jax.Array) -> jax.Array:
        """Returns [b s d]: class and distillation tokens, then the patches with positions, row of bands by row."""
        x = self.patch_embed(x)
        position = self.pos_embed[0]
        first = jnp.concatenate([self.cls_token[0], self.dist_token[0]]) + position[:2]
        first = jnp.broadcast_to(first, (x.shape[0], *first.shape)).astype(self.dtype)
        start = GRID[1] // 2 - x.shape[2] // 2
        position = position[2:].reshape(*GRID, WIDTH)[:, start : start + x.shape[2]]
        x = x + position.astype(self.dtype)
        return jnp.concatenate([first, x.reshape(x.shape[0], -1, WIDTH)], axis=1)


class SpectrogramPatches(nnx.Module):
    """A linear map of overlapping patches, with a convolution's parameters (`proj`): [b f k] -> [b 12 t d]."""

    def __init__(self, *, dtype, rngs: nnx.Rngs):
        self.proj = nnx.Conv(1, WIDTH, (PATCH, PATCH), strides=STRIDE, padding='VALID', dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        frames, bands = x.shape[1:]
        longest = PATCH + STRIDE * GRID[1] - 1
        if bands != BANDS or not PATCH <= frames <= longest:
            raise ValueError(
                f'log-mel of {frames} frames and {bands} bands; the trunk ast takes {PATCH} to {longest} frames of '
                f'{BANDS} bands: prepare the data with the mel front end ast, in segments of at most 10 seconds'
            )
        x = x.transpose(0, 2, 1)[:, _places(bands)][..., _places(frames)]
        kernel = self.proj.kernel[..., 0, :].astype(x.dtype)
        return jnp.einsum('bhywx,yxd->bhwd', x, kernel) + self.proj.bias[...].astype(x.dtype)


def _places(length: int) -> np.ndarray:
    """Returns the indices of each patch along an axis: [patches 16]."""
    return STRIDE * np.arange((length - PATCH) // STRIDE + 1)[:, None] + np.arange(PATCH)


def adapt(tensors: dict[str, np.ndarray], shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """Renames the tensors of files of the package transformers, such as MIT/ast-finetuned-audioset-10-10-0.4593."""
    del shapes
    adapted = vit_names.from_transformers(tensors)
    ours = re.compile(r'(cls_token|dist_token|pos_embed|patch_embed\.|blocks\.|norm\.)')
    return {f'v.{name}' if ours.match(name) else name: value for name, value in adapted.items()}


PUBLISHED = Published(
    lambda path: f'v.{vit_names.published_name(path)}',
    dropped=(r'v\.(head|head_dist)\..+', r'mlp_head\..+', r'classifier\..+'),
    source='AST trained on AudioSet, audioset_10_10_0.4593.pth (github.com/YuanGongND/ast) or '
    'MIT/ast-finetuned-audioset-10-10-0.4593 in the format of the package transformers',
    licence='BSD-3-Clause',
    adapt=adapt,
)

TRUNKS = {
    'visual': {},
    'audio': {'ast': Trunk('audio', AST, mean=(-4.2677393,), std=(2 * 4.5689974,), mel='ast', published=PUBLISHED)},
}

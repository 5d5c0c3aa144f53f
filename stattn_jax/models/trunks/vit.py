"""Vision transformers for frames: 'vit_s16', 'vit_b16' (DINO, timm), 'dinov2_s14', 'dinov2_s14_registers' (DINOv2).

A cell is the token of a patch after the last layer norm. Class and register tokens take part in the attention and are
then dropped. Modules and parameters have the names of the published files. Sources: Dosovitskiy et al., arXiv
2010.11929; Caron et al., arXiv 2104.14294; Oquab et al., arXiv 2304.07193; Darcet et al., arXiv 2309.16588.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.layers.recompute import run_block
from stattn_jax.models.trunks import vit_names
from stattn_jax.models.trunks.trunk import Published, Trunk


@dataclasses.dataclass(frozen=True)
class Size:
    """The sizes of a vision transformer with published weights.

    patch: side of a patch in pixels.
    grid: patches per side of the training frames, for which the position embeddings are stored.
    scaled: whether the output of attention and of the MLP is multiplied by a learned vector (LayerScale).
    registers: number of register tokens, which are added to the class token and the patches.
    antialias, offset: how position embeddings are resized, see `resize_matrix`.
    """

    patch: int
    width: int
    heads: int
    grid: int
    scaled: bool = False
    registers: int = 0
    antialias: bool = True
    offset: float = 0.0


DEPTH = 12
SIZES = {
    'vit_s16': Size(16, 384, 6, 14),
    'vit_b16': Size(16, 768, 12, 14),
    'dinov2_s14': Size(14, 384, 6, 37, scaled=True, antialias=False, offset=0.1),
    'dinov2_s14_registers': Size(14, 384, 6, 37, scaled=True, registers=4),
}


class Attention(nnx.Module):
    """Multi-head self-attention of tokens [b s d], with the softmax in float32."""

    def __init__(self, width: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.proj = Linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        b, s, d = x.shape
        # The published kernel gives [b s 3 n e]; this makes three arrays [b n s e].
        q, k, v = self.qkv(x).reshape(b, s, 3, self.heads, d // self.heads).transpose(2, 0, 3, 1, 4)
        q = q * (d // self.heads) ** -0.5
        logits = jnp.einsum('bnqe,bnke->bnqk', q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        return self.proj(jnp.einsum('bnqk,bnke->bqne', weights, v).reshape(b, s, d))


class Mlp(nnx.Module):
    """Two dense layers with an exact (erf) GELU between them: [... d] -> [... d]."""

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        self.fc1 = Linear(width, 4 * width, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(4 * width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class Scale(nnx.Module):
    """LayerScale multiplies each channel of a token by a learned number. Source: Touvron et al., arXiv 2103.17239."""

    def __init__(self, width: int):
        self.gamma = nnx.Param(jnp.ones(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...].astype(x.dtype)


class Block(nnx.Module):
    """A pre-norm transformer layer: tokens [b s d] -> [b s d]."""

    def __init__(self, width: int, heads: int, *, scaled: bool = False, dtype, rngs: nnx.Rngs):
        self.norm1 = layer_norm(width, dtype=dtype, rngs=rngs)
        self.attn = Attention(width, heads, dtype=dtype, rngs=rngs)
        self.ls1 = Scale(width) if scaled else None
        self.norm2 = layer_norm(width, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, dtype=dtype, rngs=rngs)
        self.ls2 = Scale(width) if scaled else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.attn(self.norm1(x))
        x = x + (y if self.ls1 is None else self.ls1(y))
        y = self.mlp(self.norm2(x))
        return x + (y if self.ls2 is None else self.ls2(y))


class PatchEmbed(nnx.Module):
    """A linear map of each patch, with a convolution's kernel [p p i d] (`proj`): [b H W i] -> [b H/p W/p d]."""

    def __init__(self, inputs: int, width: int, patch: int, *, dtype, rngs: nnx.Rngs):
        self.proj = nnx.Conv(inputs, width, (patch, patch), strides=patch, padding='VALID', dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.proj.kernel[...], self.proj.bias[...]
        p, _, i, d = kernel.shape
        b, height, width, _ = x.shape
        x = x.reshape(b, height // p, p, width // p, p, i).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(b, height // p, width // p, p * p * i)
        return x @ kernel.reshape(-1, d).astype(x.dtype) + bias.astype(x.dtype)


class ViT(nnx.Module):
    """Maps frames [b H W 3] to cells [b H/p W/p width]; H and W may be any multiples of the patch's side p.

    Position embeddings are stored for the grid of the published weights and resized to the grid of the frame: 'vit_*'
    as in timm (DINO's own code has no antialias and an offset of 0.1), 'dinov2_*' as in the original repository. In the
    package transformers, Dinov2Model leaves out the offset, and Dinov2WithRegistersModel does the same as this.
    A `depth` other than 12 is for tests. The trunk computes the same in training and evaluation.
    """

    remat = False

    def __init__(self, name: str, *, depth: int = DEPTH, axis_name: str | None = None, dtype, rngs: nnx.Rngs):
        del axis_name  # no statistics of a batch
        self.size = size = SIZES[name]
        self.width = size.width
        self.dtype = jnp.dtype(dtype)
        self.patch_embed = PatchEmbed(3, size.width, size.patch, dtype=dtype, rngs=rngs)
        self.cls_token = small_normal(rngs, 1, 1, size.width)
        self.register_tokens = small_normal(rngs, 1, size.registers, size.width) if size.registers else None
        self.pos_embed = small_normal(rngs, 1, 1 + size.grid**2, size.width)
        blocks = range(depth)
        self.blocks = nnx.List(
            [Block(size.width, size.heads, scaled=size.scaled, dtype=dtype, rngs=rngs) for _ in blocks]
        )
        self.norm = layer_norm(size.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        b, rows, columns = x.shape[0], *self.grid_of(*x.shape[1:3])
        x = self.tokens(x.astype(self.dtype))
        for block in self.blocks:
            x = run_block(block, x, self.remat)
        return self.norm(x[:, -rows * columns :]).reshape(b, rows, columns, self.width)

    def tokens(self, x: jax.Array) -> jax.Array:
        """Returns [b s d]: the class token, the register tokens, and the patches with their positions, row by row."""
        b, rows, columns = x.shape[0], *self.grid_of(*x.shape[1:3])
        position = self.pos_embed[...]
        first = self.cls_token[...] + position[:, :1]
        if self.register_tokens is not None:
            first = jnp.concatenate([first, self.register_tokens[...]], axis=1)
        first = jnp.broadcast_to(first, (b, *first.shape[1:])).astype(self.dtype)
        x = self.patch_embed(x) + self.positions(position[0, 1:], rows, columns).astype(self.dtype)
        return jnp.concatenate([first, x.reshape(b, rows * columns, -1)], axis=1)

    def positions(self, stored: jax.Array, rows: int, columns: int) -> jax.Array:
        """Resizes the stored embeddings [grid*grid d] to [rows columns d], if that is not already their grid."""
        grid, options = self.size.grid, (self.size.antialias, self.size.offset)
        stored = stored.reshape(grid, grid, -1)
        if (rows, columns) == (grid, grid):
            return stored
        down, across = (resize_matrix(grid, side, *options) for side in (rows, columns))
        return jnp.einsum('hy,wx,yxd->hwd', down, across, stored, precision='highest')

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Returns the rows and columns of patches; raises ValueError if patches do not fill the frame."""
        patch = self.size.patch
        if height % patch or width % patch or not height * width:
            raise ValueError(
                f'frames of {height}x{width} pixels; this trunk takes multiples of {patch}: set '
                f'config.model.frame_size to {max(patch, round(height / patch) * patch)}'
            )
        return height // patch, width // patch


def layer_norm(width: int, *, dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation with the epsilon of all these networks; the variance uses differences from the mean."""
    return nnx.LayerNorm(width, epsilon=1e-6, use_fast_variance=False, dtype=dtype, rngs=rngs)


def small_normal(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    """Returns a parameter that is initialised from a normal distribution with deviation 0.02."""
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))


@functools.cache
def resize_matrix(old: int, new: int, antialias: bool, offset: float = 0.0) -> np.ndarray:
    """Returns the matrix of bicubic resizing from `old` numbers to `new`: float32 [new old] with rows that sum to 1.

    It gives the results of torch.nn.functional.interpolate(mode='bicubic', align_corners=False). Without `antialias` it
    uses the cubic kernel of A = -0.75 on four neighbours, with edges repeated. With `antialias` it uses the kernel of
    A = -0.5, widened where there are fewer new numbers than old ones, without values outside the edges. The distance
    between new numbers is old / (new + offset); DINOv2 has an offset of 0.1.
    """
    step = old / (new + offset)
    centre = (np.arange(new) + 0.5) * step
    if antialias:
        wide = max(step, 1.0)
        weights = _cubic((np.arange(old) + 0.5 - centre[:, None]) / wide, -0.5)
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    first = np.floor(centre - 0.5).astype(int)
    matrix = np.zeros((new, old))
    for i in range(-1, 3):
        weights = _cubic(centre - 0.5 - (first + i), -0.75)
        np.add.at(matrix, (np.arange(new), np.clip(first + i, 0, old - 1)), weights)
    return matrix.astype(np.float32)


def _cubic(x, a):
    """Keys' cubic kernel, which is zero beyond 2."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _trunk(name: str, source: str, **pixels) -> Trunk:
    """Returns the entry of a trunk of SIZES; `pixels` are mean and std where they are not ImageNet's."""
    size = SIZES[name]
    published = Published(
        vit_names.published_name,
        dropped=(r'(head|head_dist|fc_norm|pre_logits|classifier|pooler)\..+', 'mask_token'),
        source=source,
        licence='Apache-2.0',
        adapt=vit_names.adapt,
    )
    return Trunk(
        'visual',
        functools.partial(ViT, name),
        stride=size.patch,
        frame_size=size.patch * size.grid,
        multiple=size.patch,
        published=published,
        **pixels,
    )


_DINO = (
    "DINO, {} (github.com/facebookresearch/dino), or timm's files whose pixels are normalised by ImageNet's mean "
    "and deviation (timm's augreg files are not: vit_s16_augreg)"
)
_AUGREG = "timm's {} (and its other augreg files), whose pixels are expected as (x - 0.5) / 0.5"
_DINOV2 = 'DINOv2, {} (github.com/facebookresearch/dinov2; also as files of timm or transformers)'

# The ViTs of timm's augreg files differ from those of DINO only in the range of their pixels.
_HALF = {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}
TRUNKS = {
    'visual': {
        'vit_s16': _trunk('vit_s16', _DINO.format('dino_deitsmall16_pretrain.pth')),
        'vit_b16': _trunk('vit_b16', _DINO.format('dino_vitbase16_pretrain.pth')),
        'vit_s16_augreg': _trunk('vit_s16', _AUGREG.format('vit_small_patch16_224.augreg_in21k_ft_in1k'), **_HALF),
        'vit_b16_augreg': _trunk('vit_b16', _AUGREG.format('vit_base_patch16_224.augreg2_in21k_ft_in1k'), **_HALF),
        'dinov2_s14': _trunk('dinov2_s14', _DINOV2.format('dinov2_vits14_pretrain.pth')),
        'dinov2_s14_registers': _trunk('dinov2_s14_registers', _DINOV2.format('dinov2_vits14_reg4_pretrain.pth')),
    },
    'audio': {},
}

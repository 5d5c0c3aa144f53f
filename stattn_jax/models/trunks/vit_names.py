"""Maps the names of published tensors of vision transformers and of the AST to those of our modules."""

import re

import numpy as np

# Pairs of a name in the package transformers (ViT, Dinov2, AST) and the name in the original repositories.
_RENAMED = (
    (r'(?:\w+\.)?embeddings\.(cls_token|mask_token|register_tokens)', r'\1'),
    (r'(?:\w+\.)?embeddings\.distillation_token', 'dist_token'),
    (r'(?:\w+\.)?embeddings\.position_embeddings', 'pos_embed'),
    (r'(?:\w+\.)?embeddings\.patch_embeddings\.projection\.(.+)', r'patch_embed.proj.\1'),
    (r'(?:(?!classifier)\w+\.)?layernorm\.(.+)', r'norm.\1'),
    (r'(?:\w+\.)?encoder\.layer\.(\d+)\.(.+)', r'blocks.\1.\2'),
    (r'(blocks\.\d+)\.attention\.attention\.(query|key|value)\.(.+)', r'\1.attn.\2.\3'),
    (r'(blocks\.\d+)\.attention\.output\.dense\.(.+)', r'\1.attn.proj.\2'),
    (r'(blocks\.\d+)\.layernorm_before\.(.+)', r'\1.norm1.\2'),
    (r'(blocks\.\d+)\.layernorm_after\.(.+)', r'\1.norm2.\2'),
    (r'(blocks\.\d+)\.intermediate\.dense\.(.+)', r'\1.mlp.fc1.\2'),
    (r'(blocks\.\d+)\.output\.dense\.(.+)', r'\1.mlp.fc2.\2'),
    (r'(blocks\.\d+)\.layer_scale(\d)\.lambda1', r'\1.ls\2.gamma'),
)


def from_transformers(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames tensors from the names of the package transformers to those of the original repositories.

    Query, key and value are concatenated to one tensor if all three are present. Other names stay as they are.
    """
    renamed = {_renamed(name): value for name, value in tensors.items()}
    for name in [name for name in renamed if '.attn.query.' in name]:
        parts = [name.replace('.query.', f'.{part}.') for part in ('query', 'key', 'value')]
        if all(part in renamed for part in parts):
            renamed[name.replace('.query.', '.qkv.')] = np.concatenate([renamed.pop(part) for part in parts])
    return renamed


def _renamed(name):
    for pattern, new in _RENAMED:
        name = re.sub(f'^{pattern}$', new, name)
    return name


def published_name(path: str) -> str:
    """Maps 'blocks/0/attn/qkv/kernel' to 'blocks.0.attn.qkv.weight'."""
    return re.sub(r'\.(kernel|scale)$', '.weight', path.replace('/', '.'))


def adapt(tensors: dict[str, np.ndarray], shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """Adapts the tensors of files of the package transformers, and of timm's files of DINOv2 with registers.

    In timm's files the position of the class token is already added to the token, so that a zero position is inserted
    for it.
    """
    del shapes
    tensors = from_transformers(tensors)
    if 'reg_token' in tensors and 'pos_embed' in tensors:
        tensors['register_tokens'] = tensors.pop('reg_token')
        tensors['pos_embed'] = np.pad(tensors['pos_embed'], ((0, 0), (1, 0), (0, 0)))
    return tensors

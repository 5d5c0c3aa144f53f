"""Tests files of vision transformers as other packages save them: the same numbers under other names."""

import drawn
import numpy as np
import pytest
import test_vit
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.trunks import registry, vit_names


def as_transformers(tensors, before):
    """Renames tensors as the package transformers does, with separate query, key and value."""
    found = {}
    for name, value in tensors.items():
        for old, new in [
            ('blocks.', 'encoder.layer.'),
            ('attn.proj', 'attention.output.dense'),
            ('patch_embed.proj', 'embeddings.patch_embeddings.projection'),
            ('pos_embed', 'embeddings.position_embeddings'),
            ('cls_token', 'embeddings.cls_token'),
            ('register_tokens', 'embeddings.register_tokens'),
            ('ls1.gamma', 'layer_scale1.lambda1'),
            ('ls2.gamma', 'layer_scale2.lambda1'),
        ]:
            name = name.replace(old, new)
        name = before + (f'layer{name}' if name.startswith('norm.') else name)
        parts = zip(('query', 'key', 'value'), np.split(value, 3)) if 'qkv' in name else [('', value)]
        found |= {name.replace('attn.qkv', f'attention.attention.{part}'): piece for part, piece in parts}
    return found


def as_timm(tensors):
    """Rewrites DINOv2 with registers as timm does.

    There is no position for the class token, which has its own added to it.
    """
    first, rest = np.split(tensors['pos_embed'], [1], axis=1)
    found = tensors | {'cls_token': tensors['cls_token'] + first, 'pos_embed': rest}
    return {name.replace('register_tokens', 'reg_token'): value for name, value in found.items()}


@pytest.mark.parametrize(
    'convert',
    [
        lambda file: as_transformers(file, '') | {'embeddings.mask_token': np.zeros((1, 384), np.float32)},
        lambda file: as_transformers(file, 'dinov2.') | {'classifier.weight': np.zeros((9, 768), np.float32)},
        as_timm,
        lambda file: {f'backbone.{name}': value for name, value in file.items()},
        lambda file: (
            file | {'head.weight': np.zeros((9, 384), np.float32), 'mask_token': np.zeros((1, 384), np.float32)}
        ),
    ],
    ids=['transformers', 'transformers with a classifier', 'timm', 'prefix', 'head'],
)
def test_files_of_other_packages_give_the_same_numbers(convert):
    trunk = registry.find('visual', 'dinov2_s14_registers')
    file = drawn.tensors(trunk, depth=1)
    frames = drawn.numbers('frames', 1, 28, 28, 3)
    found, expected = (
        test_vit.run(drawn.filled(trunk, x, depth=1), frames, train=False) for x in (convert(file), file)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_query_without_its_key_is_not_joined():
    names = [f'encoder.layer.0.attention.attention.{part}.bias' for part in ('query', 'value')]
    found = vit_names.from_transformers({name: np.zeros(4, np.float32) for name in names})
    assert set(found) == {'blocks.0.attn.query.bias', 'blocks.0.attn.value.bias'}

"""Tests the Audio Spectrogram Transformer: outputs of the published code, overlapping patches, cropped positions."""

import drawn
import jax
import numpy as np
import pytest
import test_vit
import test_vit_names
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.trunks import registry
from stattn_jax.weights import match

TRUNK = registry.find('audio', 'ast')


@pytest.fixture(scope='module')
def embedding():
    """Returns the trunk without its layers, with random weights."""
    return drawn.filled(TRUNK, depth=0)


def test_size_is_the_published_one():
    # The number was counted in ASTForAudioClassification of the package transformers, whose classifier is a norm and a
    # layer.
    state = match.abstract_state(TRUNK)
    assert sum(x.size for x in jax.tree.leaves(state)) == 86_594_063 - 2 * 768 - 527 * 769


def test_numbers_are_those_of_the_reference():
    model = drawn.filled(TRUNK, depth=2)
    out = test_vit.run(model, drawn.numbers('ast', 2, 98, 128), train=True)
    assert out.shape == (2, 768)
    np.testing.assert_allclose(drawn.sample(out), drawn.golden('ast'), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('frames', 'first', 'patches'), [(98, 46, 9), (105, 46, 9), (106, 45, 10), (1024, 0, 101)])
def test_patches_overlap_and_have_the_positions_of_the_middle(embedding, frames, first, patches):
    log_mel = drawn.numbers('log_mel', 1, frames, 128)
    found = test_vit.run(embedding, log_mel, 'tokens')[0, 2:].reshape(12, patches, 768)
    kernel, bias = (np.asarray(x[...]) for x in (embedding.patch_embed.proj.kernel, embedding.patch_embed.proj.bias))
    position = np.asarray(embedding.pos_embed[...])[0, 2:].reshape(12, 101, 768)
    for band, time in [(0, 0), (3, 5), (11, patches - 1)]:
        # Rows of a published kernel are bands; its columns are frames.
        patch = log_mel[0, 10 * time : 10 * time + 16, 10 * band : 10 * band + 16].T
        expected = np.einsum('yx,yxd->d', patch, kernel[:, :, 0]) + bias + position[band, first + time]
        np.testing.assert_allclose(found[band, time], expected, rtol=1e-4, atol=1e-4)


def test_output_is_the_mean_of_the_two_tokens_behind_the_norm(embedding):
    tokens = np.asarray(test_vit.run(embedding, drawn.numbers('log_mel', 2, 98, 128), 'tokens'), np.float64)[:, :2]
    unit = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-6)
    expected = (unit * embedding.norm.scale[...] + embedding.norm.bias[...]).mean(1)
    found = test_vit.run(embedding, drawn.numbers('log_mel', 2, 98, 128), train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shape', [(15, 128), (1026, 128), (96, 64)])
def test_other_log_mel_is_named(embedding, shape):
    with pytest.raises(
        ValueError, match='log-mel of {} frames and {} bands; .* takes 16 to 1025 frames of 128'.format(*shape)
    ):
        embedding(np.zeros((1, *shape), np.float32), train=False)


def test_log_mel_is_scaled_as_the_original_scales_it():
    log_mel = np.asarray([-4.2677393, 0.0])
    scaled = (log_mel - np.asarray(TRUNK.mean)) / np.asarray(TRUNK.std)
    np.testing.assert_allclose(scaled, [0, 4.2677393 / (2 * 4.5689974)])


def from_original(file):
    """Returns the file as the original repository saves it.

    It saves from several devices, with its own classifier and that of ImageNet.
    """
    heads = {'v.head.weight': (9, 768), 'v.head_dist.bias': (9,), 'mlp_head.0.weight': (768,), 'mlp_head.1.bias': (5,)}
    file = file | {name: np.zeros(shape, np.float32) for name, shape in heads.items()}
    return {f'module.{name}': value for name, value in file.items()}


def from_transformers(file):
    """Returns the file as the package transformers saves it, with the norm of its classifier."""
    file = {name.removeprefix('v.'): value for name, value in file.items()}
    file = test_vit_names.as_transformers(file, 'audio_spectrogram_transformer.')
    renames = [
        ('norm1', 'layernorm_before'),
        ('norm2', 'layernorm_after'),
        ('mlp.fc1', 'intermediate.dense'),
        ('mlp.fc2', 'output.dense'),
        ('dist_token', 'embeddings.distillation_token'),
    ]
    for old, new in renames:
        file = {name.replace(old, new): value for name, value in file.items()}
    return file | {'classifier.layernorm.weight': np.zeros(768, np.float32)}


@pytest.mark.parametrize('convert', [from_original, from_transformers])
def test_both_published_files_give_the_same_numbers(convert):
    file = drawn.tensors(TRUNK, depth=1)
    model = drawn.filled(TRUNK, convert(file), depth=1)
    found = match.export(nnx.as_pure(nnx.state(model)), TRUNK.published)
    assert set(found) == set(file)
    for name, value in file.items():
        np.testing.assert_array_equal(found[name], value)

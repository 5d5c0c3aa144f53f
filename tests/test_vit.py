"""Tests vision transformers: values of the published code, resized positions, and the places of cells."""

import drawn
import jax
import numpy as np
import PIL.Image
import pytest
import tiny
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.trunks import registry, vit
from stattn_jax.weights import match

# Counted in the reference networks: timm's with a classifier of 1000 classes, less that; Dinov2Model and
# Dinov2WithRegistersModel of the package transformers, less their mask token.
PARAMETERS = {
    'vit_s16': 22_050_664 - 385_000,
    'vit_b16': 86_567_656 - 769_000,
    'dinov2_s14': 22_056_576 - 384,
    'dinov2_s14_registers': 22_058_112 - 384,
}


def make_vit(name, **options):
    return tiny.filled(lambda: vit.ViT(name, rngs=nnx.Rngs(0), **{'depth': 2, 'dtype': np.float32, **options}))


def run(model, x, method='__call__', **options):
    graphdef, state = nnx.split(model)
    call = jax.jit(lambda state, x: getattr(nnx.merge(graphdef, state), method)(x, **options))
    return np.asarray(call(nnx.as_pure(state), x))


@pytest.mark.parametrize('name', PARAMETERS)
def test_sizes_are_the_published_ones(name):
    state = match.abstract_state(registry.find('visual', name))
    assert sum(x.size for x in jax.tree.leaves(state)) == PARAMETERS[name]


@pytest.mark.parametrize('name', drawn.FRAMES)
def test_numbers_are_those_of_the_reference(name):
    model = drawn.filled(registry.find('visual', name), depth=2)
    out = run(model, drawn.numbers(name, 2, *drawn.FRAMES[name], 3), train=True)
    assert out.shape == (2, 3, 5, 384)
    np.testing.assert_allclose(drawn.sample(out), drawn.golden(name), rtol=1e-4, atol=1e-4)


def test_bfloat16_is_near_float32():
    frames = drawn.numbers('frames', 1, 32, 48, 3)
    exact = run(make_vit('vit_s16'), frames, train=False)
    half = run(make_vit('vit_s16', dtype='bfloat16'), frames, train=False)
    assert half.dtype == jax.numpy.bfloat16
    assert 0 < np.abs(half.astype(np.float32) - exact).max() < 0.05 * np.abs(exact).max()


# ---------------------------------------------------------------------------------------------------------------------
# Where cells lie
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('name', 'side'), [('vit_s16', 16), ('dinov2_s14', 14), ('dinov2_s14_registers', 14)])
def test_pixels_of_one_patch_reach_the_cell_at_its_place_alone(name, side):
    # Depth 0 means no layers in which cells attend to each other.
    model = make_vit(name, depth=0)
    frames = drawn.numbers(name, 1, 3 * side, 4 * side, 3)
    before = run(model, frames, train=False)
    for row, column in [(0, 0), (1, 2), (2, 3)]:
        marked = frames.copy()
        marked[:, row * side : (row + 1) * side, column * side : (column + 1) * side] += 1
        changed = (run(model, marked, train=False) != before).any(-1)[0]
        assert np.argwhere(changed).tolist() == [[row, column]]


def test_a_patch_is_read_as_a_convolution_reads_it():
    model = make_vit('vit_s16', depth=0)
    frames = drawn.numbers('frames', 1, 32, 48, 3)
    kernel, bias = model.patch_embed.proj.kernel[...], model.patch_embed.proj.bias[...]
    expected = [
        [np.einsum('yxi,yxid->d', frames[0, r : r + 16, c : c + 16], kernel) + bias for c in (0, 16, 32)]
        for r in (0, 16)
    ]
    np.testing.assert_allclose(model.patch_embed(frames)[0], expected, rtol=1e-4, atol=1e-5)


def test_cells_only_know_their_place_by_their_position():
    """Exchanging two patches together with their positions exchanges only their two output cells."""
    model = make_vit('dinov2_s14', depth=2)
    side, grid = 14, 37
    position = np.asarray(model.pos_embed[...])
    frames = drawn.numbers('frames', 1, side * grid, side * grid, 3)[:, : 2 * side, : 2 * side]
    # There are two by two cells, whose stored positions are used without resizing.
    model.positions = lambda stored, rows, columns: stored[: rows * columns].reshape(rows, columns, -1)
    before = run(model, frames, train=False)[0]
    swapped = frames.copy()
    swapped[:, :side, :side], swapped[:, side:, side:] = frames[:, side:, side:], frames[:, :side, :side]
    model.pos_embed[...] = position[:, [0, 4, 2, 3, 1, *range(5, position.shape[1])]]
    after = run(model, swapped, train=False)[0]
    np.testing.assert_allclose(
        after[[1, 0, 0, 1], [1, 1, 0, 0]], before[[0, 0, 1, 1], [0, 1, 1, 0]], rtol=1e-3, atol=1e-4
    )


def test_frames_that_patches_do_not_fill_are_named():
    with pytest.raises(
        ValueError, match='frames of 224x230 pixels; .* multiples of 14: set config.model.frame_size to 224'
    ):
        make_vit('dinov2_s14', depth=0)(np.zeros((1, 224, 230, 3), np.float32), train=False)


# ---------------------------------------------------------------------------------------------------------------------
# Positions
# ---------------------------------------------------------------------------------------------------------------------


def test_positions_of_the_stored_grid_are_the_stored_ones():
    model = make_vit('vit_s16', depth=0)
    stored = drawn.numbers('positions', 14 * 14, 384)
    np.testing.assert_array_equal(model.positions(stored, 14, 14).reshape(-1, 384), stored)


def test_rows_and_columns_are_not_exchanged():
    model = make_vit('vit_s16', depth=0)
    rows = np.repeat(np.arange(14.0), 14)[:, None] * np.ones(384)
    resized = np.asarray(model.positions(rows.astype(np.float32), 7, 28))
    assert resized.shape == (7, 28, 384)
    # Far from the edges the antialiased cubic reproduces a straight line: pairs of rows give their mean.
    np.testing.assert_allclose(
        resized[2:5], np.broadcast_to(2 * np.arange(2, 5)[:, None, None] + 0.5, (3, 28, 384)), atol=1e-5
    )


@pytest.mark.parametrize(('old', 'new'), [(14, 14), (14, 5), (14, 9), (14, 31), (37, 16), (37, 2)])
def test_resizing_with_antialias_is_that_of_pillow(old, new):
    values = drawn.numbers('values', old)
    expected = PIL.Image.fromarray(values[:, None]).resize((1, new), PIL.Image.Resampling.BICUBIC)
    found = vit.resize_matrix(old, new, antialias=True) @ values
    np.testing.assert_allclose(found, np.asarray(expected)[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('offset', [0.0, 0.1])
@pytest.mark.parametrize(('old', 'new'), [(37, 16), (37, 37), (37, 40), (5, 3)])
def test_resizing_without_antialias_is_the_cubic_through_four_neighbours(old, new, offset):
    values = drawn.numbers('values', old)
    expected = []
    for i in range(new):
        at = (i + 0.5) * old / (new + offset) - 0.5
        t = at - np.floor(at)
        a, b, c, d = (values[min(max(int(np.floor(at)) + k, 0), old - 1)] for k in (-1, 0, 1, 2))
        # Hermite's cubic from b to c with the slopes 0.75 (c - a) and 0.75 (d - b).
        start, end = 0.75 * (c - a), 0.75 * (d - b)
        expected.append(b + start * t + (3 * (c - b) - 2 * start - end) * t**2 + (2 * (b - c) + start + end) * t**3)
    found = vit.resize_matrix(old, new, antialias=False, offset=offset) @ values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

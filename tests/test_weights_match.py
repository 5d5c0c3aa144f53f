"""Tests how published tensors fill a trunk's state.

Axes, names, prefixes, rules, and every kind of mismatch are covered.
"""

import dataclasses

import jax
import numpy as np
import pytest

from stattn_jax.models.trunks import registry, resnet
from stattn_jax.models.trunks.trunk import Published
from stattn_jax.weights import match
from stattn_jax.weights.errors import WeightsError

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}


def plain_name(path):
    """'net/0/bn/scale' to 'net.0.bn.weight'."""
    *layer, leaf = path.split('/')
    return '.'.join([*layer, LEAVES.get(leaf, leaf)])


def resnet_name(path):
    """'layers/0/1/convs/0/kernel' to 'layer1.1.conv1.weight', as torchvision names it."""
    layer, _, leaf = path.rpartition('/')
    if layer.startswith('layers/'):
        _, stage, block, part, number = layer.split('/')
        kinds = {'convs': f'conv{int(number) + 1}', 'bns': f'bn{int(number) + 1}', 'downsample': f'downsample.{number}'}
        layer = f'layer{int(stage) + 1}.{block}.{kinds[part]}'
    return f'{layer}.{LEAVES[leaf]}'


PLAIN = Published(plain_name, (r'head\..+',), 'the example of this test', 'CC0')
RESNET = Published(resnet_name, (r'fc\..+',), 'torchvision', 'BSD-3-Clause')
SHAPES = {
    'conv': {'kernel': (3, 2, 4, 5)},
    'depthwise': {'kernel': (3, 3, 1, 6)},
    'dense': {'kernel': (2, 3), 'bias': (3,)},
    'bn': {'scale': (5,), 'bias': (5,), 'mean': (5,), 'var': (5,)},
    'heads': {0: {'kernel': (2, 3, 4)}},
    'pos_embed': (1, 7, 2),
}
PUBLISHED = {
    'conv.weight': (5, 4, 3, 2),
    'depthwise.weight': (6, 1, 3, 3),
    'dense.weight': (3, 2),
    'dense.bias': (3,),
    'bn.weight': (5,),
    'bn.bias': (5,),
    'bn.running_mean': (5,),
    'bn.running_var': (5,),
    'heads.0.weight': (2, 3, 4),
    'pos_embed': (1, 7, 2),
}


def is_shape(x):
    return isinstance(x, tuple)


def a_state():
    return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, np.float32), SHAPES, is_leaf=is_shape)


def some_tensors(dtype=np.float32):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in PUBLISHED.items()}


def drawn(state):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.random(x.shape, np.float32), state)


def fill(tensors, published=PLAIN, state=None):
    return match.fill(a_state() if state is None else state, published, tensors, 'x.pth for the visual trunk plain')


def fails(tensors, *words, **options):
    with pytest.raises(WeightsError) as caught:
        fill(tensors, **options)
    line = str(caught.value)
    assert line.startswith('x.pth for the visual trunk plain: ') and all(word in line for word in words), line
    return line


def trunks_are(monkeypatch, trunks):
    monkeypatch.setattr(registry, 'trunks', lambda modality: trunks if modality == 'visual' else {})


@pytest.fixture(autouse=True)
def no_trunks(monkeypatch):
    """Empties the registry, because an error looks at every trunk of it, which takes seconds."""
    trunks_are(monkeypatch, {})


@pytest.fixture(scope='module')
def resnets():
    """Two ResNets with published names, and the shapes of their parameters."""
    found = {name: resnet.TRUNKS['visual'][name] for name in ('resnet18', 'resnet50')}
    trunks = {name: dataclasses.replace(trunk, published=RESNET) for name, trunk in found.items()}
    return trunks, {name: match.abstract_state(trunk) for name, trunk in trunks.items()}


def test_axes_are_turned_number_by_number():
    tensors = some_tensors()
    filled, report = fill(tensors)
    for h, w, i, o in np.ndindex(3, 2, 4, 5):
        assert filled['conv']['kernel'][h, w, i, o] == tensors['conv.weight'][o, i, h, w]
    for h, w, c in np.ndindex(3, 3, 6):
        assert filled['depthwise']['kernel'][h, w, 0, c] == tensors['depthwise.weight'][c, 0, h, w]
    for i, o in np.ndindex(2, 3):
        assert filled['dense']['kernel'][i, o] == tensors['dense.weight'][o, i]
    for name, path in {'weight': 'scale', 'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}.items():
        np.testing.assert_array_equal(filled['bn'][path], tensors[f'bn.{name}'])
    np.testing.assert_array_equal(filled['heads'][0]['kernel'], tensors['heads.0.weight'])
    np.testing.assert_array_equal(filled['pos_embed'], tensors['pos_embed'])
    assert jax.tree.map(np.shape, filled) == SHAPES
    assert report == match.Report(used=10, dropped=(), prefix='')


def test_export_is_the_inverse():
    state = drawn(a_state())
    tensors = match.export(state, PLAIN)
    assert {name: value.shape for name, value in tensors.items()} == PUBLISHED
    assert all(value.flags.c_contiguous for value in tensors.values())
    assert jax.tree.all(jax.tree.map(np.array_equal, fill(tensors)[0], state))


def test_numbers_take_the_type_of_the_trunk():
    tensors = some_tensors(np.float16)
    filled, _ = fill(tensors)
    assert {leaf.dtype for leaf in jax.tree.leaves(filled)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(filled['pos_embed'], tensors['pos_embed'])


def test_a_resnet_there_and_back(resnets):
    abstract = resnets[1]['resnet18']
    state = drawn(abstract)
    tensors = match.export(state, RESNET)
    assert tensors['layer2.0.downsample.0.weight'].shape == (128, 64, 1, 1)
    # Each of 20 convolutions has a kernel, and its normalisation has four arrays.
    assert len(tensors) == 100
    tensors |= {'fc.weight': np.zeros((1000, 512)), 'bn1.num_batches_tracked': np.int64(7)}
    filled, report = match.fill(abstract, RESNET, tensors, 'x')
    assert report.dropped == ('fc.weight', 'bn1.num_batches_tracked') and report.used == 100
    assert jax.tree.structure(filled) == jax.tree.structure(state)
    assert jax.tree.all(jax.tree.map(np.array_equal, filled, state))


@pytest.mark.parametrize(('before', 'prefix'), [('module.', 'module.'), ('module.backbone.', 'module.backbone.')])
def test_a_prefix_of_all_names_is_taken_off(before, prefix):
    tensors = some_tensors()
    filled, report = fill({before + name: value for name, value in tensors.items()})
    assert report.prefix == prefix
    np.testing.assert_array_equal(filled['pos_embed'], tensors['pos_embed'])


def test_a_prefix_need_not_stand_before_dropped_names():
    tensors = {f'backbone.{name}': value for name, value in some_tensors().items()} | {'head.weight': np.zeros(2)}
    assert fill(tensors)[1] == match.Report(used=10, dropped=('head.weight',), prefix='backbone.')
    fails({'backbone.pos_embed': np.zeros((1, 7, 2)), 'neck': np.zeros(2)}, '2 unexpected: backbone.pos_embed, neck')


def test_names_that_begin_like_a_prefix_stay():
    published = dataclasses.replace(PLAIN, name=lambda path: f'model.{plain_name(path)}')
    tensors = {f'model.{name}': value for name, value in some_tensors().items()}
    assert fill(tensors, published=published)[1].prefix == ''
    assert (
        fill({f'model.{name}': value for name, value in tensors.items()}, published=PLAIN)[1].prefix == 'model.model.'
    )


def test_missing_unexpected_and_mis_shaped_tensors_are_named():
    tensors = some_tensors()
    del tensors['dense.bias']
    tensors |= {'extra': np.zeros(2), 'conv.weight': np.zeros((5, 4, 3, 3))}
    fails(
        tensors,
        '1 missing: dense.bias; 1 unexpected: extra; 1 of another shape: conv.weight is (5, 4, 3, 3), '
        'expected (5, 4, 3, 2); give weights such as the example of this test',
    )
    line = fails({f'{i:02}': np.zeros(1) for i in range(20)} | some_tensors())
    assert '20 unexpected: 00, 01, 02, 03, 04, 05, 06, 07 and 12 more' in line and 'missing' not in line


def test_a_tensor_of_other_axes_is_mis_shaped_even_if_turning_would_fit():
    fails(some_tensors() | {'dense.weight': np.zeros((2, 3))}, 'dense.weight is (2, 3), expected (3, 2)')


def test_a_file_of_another_trunk_is_recognised(resnets, monkeypatch):
    trunks, states = resnets
    trunks_are(monkeypatch, trunks)
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), states['resnet50'])
    tensors = {f'module.{name}': value for name, value in match.export(zeros, RESNET).items()}
    words = 'its tensors look like those of resnet50; give weights such as torchvision'
    fails(tensors, words, published=RESNET, state=states['resnet18'])
    assert match.resembles(some_tensors()) is None
    # One missing tensor does not make a ResNet-50 look like another trunk.
    tensors.pop('module.bn1.bias')
    line = fails(tensors, '1 missing: bn1.bias;', published=RESNET, state=states['resnet50'])
    assert 'look like' not in line


def test_adapt_gets_the_tensors_without_prefix_and_the_expected_shapes():
    seen = {}

    def adapt(tensors, shapes):
        seen.update(shapes)
        assert set(tensors) == set(shapes)
        side = shapes['pos_embed'][1]
        return tensors | {'pos_embed': tensors['pos_embed'][:, :side]}

    tensors = {f'module.{name}': value for name, value in some_tensors().items()}
    longer = np.random.default_rng(2).normal(size=(1, 9, 2))
    published = dataclasses.replace(PLAIN, adapt=adapt)
    filled, _ = fill(tensors | {'module.pos_embed': longer}, published=published)
    np.testing.assert_array_equal(filled['pos_embed'], longer[:, :7].astype(np.float32))
    assert seen == PUBLISHED


def test_errors_of_adapt_are_one_line():
    def adapt(tensors, shapes):
        raise ValueError('pos_embed has 9 places; expected 7')

    fails(some_tensors(), 'pos_embed has 9 places; expected 7', published=dataclasses.replace(PLAIN, adapt=adapt))


def test_two_parameters_of_one_name_are_a_mistake_of_the_trunk():
    published = dataclasses.replace(PLAIN, name=lambda path: plain_name(path).replace('dense', 'bn'))
    with pytest.raises(ValueError, match='names several of its parameters bn.bias, bn.weight;'):
        fill(some_tensors(), published=published)

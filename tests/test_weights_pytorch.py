"""Tests files in PyTorch's two formats, made byte by byte: what is read, and that nothing in them is run.

Where PyTorch is installed, files that it wrote are tested too.
"""

import argparse
import copy
import io
import pickle
import zipfile

import numpy as np
import pytest
from weight_files import (
    SIX,
    STATE,
    WHOLE,
    Evil,
    Ops,
    call,
    fails,
    in_legacy,
    in_zip,
    name,
    ops,
    read,
    storage,
    tensor,
    whole,
)

from stattn_jax.weights import formats, pytorch

FORMATS = pytest.mark.parametrize('pack', [in_zip, in_legacy])


@FORMATS
def test_strided_views_share_one_storage(pack, tmp_path):
    numbers = np.arange(24, dtype=np.float32)
    views = {
        'plain': ((4, 6), (6, 1), 0),
        'transposed': ((6, 4), (1, 6), 0),
        'slice': ((2, 3), (6, 1), 8),
        'every other': ((3,), (2,), 1),
        'windows': ((5, 4), (2, 1), 3),
        'number': ((), (), 23),
        'nothing': ((0, 3), (3, 1), 24),
    }
    state = {key: tensor('7', 24, size, stride, offset) for key, (size, stride, offset) in views.items()}
    found = read(tmp_path, pack(state, {'7': numbers}))
    grid = numbers.reshape(4, 6)
    np.testing.assert_array_equal(found.pop('plain'), grid)
    np.testing.assert_array_equal(found.pop('transposed'), grid.T)
    np.testing.assert_array_equal(found.pop('slice'), grid[1:3, 2:5])
    np.testing.assert_array_equal(found.pop('every other'), [1, 3, 5])
    np.testing.assert_array_equal(found.pop('windows'), [[3 + 2 * i + j for j in range(4)] for i in range(5)])
    assert found['number'].shape == () and found['number'] == 23 and found['nothing'].shape == (0, 3)
    assert list(state)[-2:] == list(found)


@FORMATS
@pytest.mark.parametrize(
    ('kind', 'dtype'),
    {
        'Float': 'f4',
        'Double': 'f8',
        'Half': 'f2',
        'Long': 'i8',
        'Int': 'i4',
        'Short': 'i2',
        'Char': 'i1',
        'Byte': 'u1',
    }.items(),
)
def test_every_type_of_storage(pack, kind, dtype, tmp_path):
    numbers = np.array([3, 1, 2], dtype)
    found = read(tmp_path, pack({'x': tensor('0', 3, (3,), (1,), kind=f'torch.{kind}Storage')}, {'0': numbers}))['x']
    assert found.dtype == numbers.dtype and found.tolist() == [3, 1, 2]


@FORMATS
def test_bfloat16_becomes_float32_and_bool_stays(pack, tmp_path):
    half = np.array([0x3F80, 0xC040, 0x0001], '<u2')  # 1, -3 and the smallest: the upper halves of float32
    state = {
        'half': tensor('0', 3, (3,), (1,), kind='torch.BFloat16Storage'),
        'yes': tensor('1', 2, (2,), (1,), kind='torch.BoolStorage'),
    }
    found = read(tmp_path, pack(state, {'0': half, '1': np.array([False, True])}))
    assert found['half'].dtype == np.float32 and found['half'].tolist() == [1, -3, 2.0**-133]
    assert found['yes'].dtype == bool and found['yes'].tolist() == [False, True]


@FORMATS
def test_untyped_storages_and_parameters(pack, tmp_path):
    hooks = call('collections.OrderedDict')
    made = storage('0', 8, 'torch.storage.UntypedStorage')
    short = call('torch._utils._rebuild_tensor_v3', made, 1, (2,), (1,), False, hooks, name('torch.uint16'))
    parameter = call('torch._utils._rebuild_parameter', tensor('1', 6, (2, 3), (3, 1)), True, hooks)
    numbers = np.array([7, 60000, 9, 0], '<u2').view('u1')
    found = read(tmp_path, pack({'short': short, 'weight': parameter}, {'0': numbers, '1': SIX}))
    assert found['short'].dtype == np.uint16 and found['short'].tolist() == [60000, 9]
    np.testing.assert_array_equal(found['weight'], SIX.reshape(2, 3))


def test_legacy_storage_that_is_part_of_another(tmp_path):
    part = tensor('0', 6, (2,), (1,), offset=1, view=(('9', 2, 3),))
    assert read(tmp_path, in_legacy({'x': part}, {'0': SIX}))['x'].tolist() == [3, 4]
    beyond = tensor('0', 6, (2,), (1,), offset=2, view=(('9', 2, 3),))
    fails(tmp_path, in_legacy({'x': beyond}, {'0': SIX}), 'damaged', 'x reaches number 3 of a storage of 3')


X, Y = tensor('0', 6, (2,), (1,)), tensor('0', 6, (2,), (1,), offset=4)


@FORMATS
@pytest.mark.parametrize(
    ('tree', 'expected'),
    [
        ({'x': X, 'epoch': 3}, {'x': [0, 1]}),
        ({'epoch': 3, 'optimizer': {'state': {0: {'m': X}}}, 'state_dict': {'y': Y}}, {'y': [4, 5]}),
        ({'loss': X, 'model': {'y': Y}}, {'y': [4, 5]}),
        ({'student': {'x': X}, 'teacher': {'y': Y}, 'dino_loss': {'center': X}}, {'y': [4, 5]}),
        ({'model': {'state_dict': {'y': Y}, 'steps': 2}}, {'y': [4, 5]}),
        ({'weights_of_mine': {'y': Y}, 'note': 'text'}, {'y': [4, 5]}),
        ({'model': 'resnet', 'network': {'y': Y}}, {'y': [4, 5]}),
        (call('collections.OrderedDict', [['y', Y]]), {'y': [4, 5]}),
    ],
)
def test_one_mapping_of_tensors_is_found(pack, tree, expected, tmp_path):
    assert {key: value.tolist() for key, value in read(tmp_path, pack(tree, {'0': SIX})).items()} == expected


@FORMATS
def test_no_or_several_mappings_are_an_error(pack, tmp_path):
    fails(tmp_path, pack({'a': {'x': X}, 'b': {'y': Y}}, {'0': SIX}), 'several mappings of tensors: a, b')
    fails(
        tmp_path, pack({'epoch': 3, 'note': 'x'}, {}), 'no tensors by name', 'dict of epoch, note', 'model.state_dict()'
    )
    fails(tmp_path, pack([X], {'0': SIX}), 'but a list')
    network = Ops(name('torchvision.models.resnet.ResNet') + b')\x81' + ops({'training': False}) + b'b')
    fails(tmp_path, pack(network, {}), 'an object of torchvision.models.resnet.ResNet', 'model.state_dict()')
    # A mapping that contains itself.
    fails(tmp_path, pack(Ops(b'}q\x00(' + ops('me') + b'h\x00u'), {}), 'no tensors by name')


@FORMATS
@pytest.mark.parametrize('protocol', range(6))
def test_objects_beside_the_tensors_are_passed_over(pack, protocol, tmp_path):
    options = argparse.Namespace(arch='vit', lr=1e-3, sizes={1, 2}, folder=tmp_path)
    dumped = pickle.dumps(options, protocol)
    assert dumped[:1] == b'\x80' or protocol < 2
    inner = Ops(dumped[2 if protocol >= 2 else 0 : -1])
    # The memo of `options` may take the number 0 and up; nothing else here uses it.
    tree = {
        'args': inner,
        'best': call('numpy.core.multiarray.scalar', call('numpy.dtype', 'f8'), b'12345678'),
        'model': {'x': X},
    }
    assert read(tmp_path, pack(tree, {'0': SIX}))['x'].tolist() == [0, 1]


@FORMATS
def test_calls_in_a_pickle_are_refused_and_not_run(pack, tmp_path):
    marker = tmp_path / 'marker'
    evil = pickle.dumps(Evil(f'touch {marker}'), 2)
    fails(tmp_path, pack({'x': X, 'y': Ops(evil[2:-1])}, {'0': SIX}), 'would call posix.system', 'nothing was run')
    assert not marker.exists()
    pickle.loads(evil)
    assert marker.exists()


@FORMATS
@pytest.mark.parametrize(
    'instructions',
    [
        b'(' + pickle.dumps('1', 2)[2:-1] + b'ibuiltins\neval\n',
        b'(cbuiltins\neval\n' + pickle.dumps('1', 2)[2:-1] + b'o',
        name('torch.storage._load_from_bytes') + b'(C\x01.tR',
        pickle.dumps('builtins', 4)[11:-2] + pickle.dumps('eval', 4)[11:-2] + b'\x93)R',
    ],
)
def test_every_way_to_call_is_refused(pack, instructions, tmp_path):
    called = 'torch.storage._load_from_bytes' if b'torch' in instructions else 'builtins.eval'
    fails(tmp_path, pack({'x': X, 'y': Ops(instructions)}, {'0': SIX}), f'would call {called} when')


@FORMATS
@pytest.mark.parametrize(
    ('kind', 'dtype', 'step', 'copied'),
    [('Float', 'f4', 1, False), ('Float', 'f4', 0, True), ('BFloat16', 'u2', 1, True), ('BFloat16', 'u2', 0, True)],
)
def test_tensors_that_share_numbers_are_not_copied_without_limit(pack, kind, dtype, step, copied, tmp_path):
    views = {f't{i}': tensor('0', 1000, (1000,), (step,), kind=f'torch.{kind}Storage') for i in range(30)}
    content = pack(views, {'0': np.ones(1000, dtype)})
    if copied:
        words = 'the tensors up to t', 'have more numbers than the file has bytes', 'save each with .clone()'
        fails(tmp_path, content, *words)
    else:
        found = list(read(tmp_path, content).values())
        assert len(found) == 30 and all(np.shares_memory(found[0], one) for one in found)


@FORMATS
def test_a_list_that_is_given_to_many_calls_is_refused(pack, tmp_path):
    pairs = b'](' + b''.join(ops((f'k{i}', i)) for i in range(100)) + b'eq\x00'
    many = pairs + name('collections.OrderedDict') + b'q\x01' + b'h\x01h\x00\x85R' * 100
    fails(tmp_path, pack(Ops(b'(' + many + b'l'), {}), 'its calls are given more items than it has bytes')
    many = pairs + b'(' + b'h\x00' * 999 + b'tq\x02' + name('torch._utils._rebuild_parameter') + b'q\x01'
    fails(tmp_path, pack(Ops(b'(' + many + b'h\x01h\x02R' * 100 + b'l'), {}), 'its calls are given more items')
    nested = pairs + name('collections.OrderedDict') + b'](' + b'h\x00' * 100 + b'e\x85R'
    words = 'it makes a dict of items that are no pairs of a key and a value'
    fails(tmp_path, pack(Ops(b'(' + nested + b'l'), {}), words)


@FORMATS
def test_pickles_of_neither_tensors_nor_dicts_are_refused(pack, tmp_path):
    def refused(value, words):
        fails(tmp_path, pack({'x': X, 'y': value}, {'0': SIX}), f'its pickle: {words}')

    refused(tensor('0', 6, (1,) * 65, (1,) * 65), 'a tensor in it has 65 dimensions, more than 64')
    refused(tensor('0', 6, (2**63,), (0,)), 'a size, a stride or an offset in it is no natural number of 63 bits')
    refused(
        Ops(ops(('storage', name('torch.FloatStorage'), '0', 'cpu', 6, *[None] * 9)) + b'Q'), 'it refers to something'
    )
    refused(Ops(b'](K\x01K\x02u'), 'it adds items to an object that is no dict')
    refused(Ops(b'}(K\x01u'), 'it adds a key without a value to a dict')
    refused(Ops(b'ca-b\nc\n'), 'a GLOBAL has no valid module and name')
    refused(Ops(ops('a') + ops(1) + b'\x93'), 'a GLOBAL has no valid module and name')
    refused(Ops(ops('a' * 300) + ops('b') + b'\x93'), 'a GLOBAL has no valid module and name')


def test_the_head_of_the_old_format_is_checked(tmp_path):
    content = b''.join(map(whole, [pytorch.MAGIC, pytorch.VERSION, 1]))
    fails(tmp_path, content, 'not the version 1001, or its third is no dictionary')


def test_entries_that_are_packed_or_lie_over_others_are_refused(tmp_path):
    stream, inner, plain = io.BytesIO(), io.BytesIO(), in_zip(STATE, WHOLE)
    with zipfile.ZipFile(io.BytesIO(plain)) as archive, zipfile.ZipFile(stream, 'w', zipfile.ZIP_DEFLATED) as packed:
        for entry in archive.namelist():
            packed.writestr(entry, archive.read(entry) + bytes(500))
    fails(tmp_path, stream.getvalue(), 'archive/byteorder in it is compressed')
    # Storage 1 lies entirely within storage 0.
    with zipfile.ZipFile(inner, 'w') as archive:
        archive.writestr('archive/data/1', bytes(3000))
        within = copy.copy(archive.getinfo('archive/data/1'))
        numbers = np.frombuffer(inner.getvalue(), np.uint8)
    stream = io.BytesIO()
    state = {key: tensor(key, 3000, (3000,), (1,), kind='torch.ByteStorage') for key in '01'}
    stream.write(in_zip(state, {'0': numbers}))
    with zipfile.ZipFile(stream, 'a') as archive:
        within.header_offset = stream.getvalue().index(numbers.tobytes())
        archive.filelist.append(within)
        archive.writestr('archive/end', b'')
    fails(tmp_path, stream.getvalue(), 'archive/data/1 in it is longer than the archive, or lies over other entries')


def test_storages_that_do_not_fit_are_named(tmp_path):
    fails(tmp_path, in_zip(STATE, {'0': SIX}), 'archive/data/1 in it is missing')
    fails(tmp_path, in_zip(STATE, {'0': SIX[:4], '1': SIX}), 'x has 16 of 24 bytes')
    fails(tmp_path, in_legacy(STATE, {'0': SIX}), 'storage 1 is missing')
    fails(tmp_path, in_zip({'x': tensor('0', 6, (3,), (3,))}, {'0': SIX}), 'x reaches number 6 of a storage of 6')
    fails(tmp_path, in_zip({'x': tensor('0', 6, (3,), (-1,), 5)}, {'0': SIX}), 'no natural number')
    kind = 'torch.ComplexFloatStorage'
    fails(
        tmp_path,
        in_zip({'x': tensor('0', 3, (3,), (1,), kind=kind)}, {'0': SIX}),
        'holds a ComplexFloatStorage',
        'FloatStorage,',
    )
    fails(tmp_path, in_legacy(STATE, WHOLE, [('little_endian', False)]), 'big-endian')


@pytest.mark.parametrize('in_zip_format', [True, False])
def test_files_of_pytorch_itself(in_zip_format, tmp_path):
    torch = pytest.importorskip('torch', reason='compares with PyTorch where it is installed')
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    state = layer.state_dict() | {
        'turned': base.permute(2, 0, 1),
        'slice': base[1:, ::2, 3],
        'shared': base,
        'windows': base.reshape(-1).unfold(0, 7, 3),
        'last': base.to(memory_format=torch.contiguous_format)[None].contiguous(memory_format=torch.channels_last),
        'half': torch.tensor([[1.5, -2.25], [3e38, 1e-40]], dtype=torch.bfloat16).T,
        'number': torch.tensor(3),
        'none': torch.empty(0, 4),
        'parameter': torch.nn.Parameter(torch.randn(2, 3)),
    }
    dtypes = 'float16 float64 int8 int16 int32 int64 uint8 bool'.split()
    state |= {dtype: torch.tensor([0, 1, 2]).to(getattr(torch, dtype)) for dtype in dtypes}
    state |= {'uint16': torch.tensor([1, 65535], dtype=torch.uint16)} if in_zip_format else {}
    path = tmp_path / 'x.pt'
    checkpoint = {'model': state, 'args': argparse.Namespace(a=1, device=torch.device('cpu')), 'size': torch.Size([1])}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=in_zip_format)
    found = formats.read(path)
    assert list(found) == list(state)
    for key, value in torch.load(path, weights_only=False)['model'].items():
        value = value.detach()
        expected = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        assert found[key].dtype == expected.dtype and found[key].shape == expected.shape, key
        np.testing.assert_array_equal(found[key], expected, err_msg=key)

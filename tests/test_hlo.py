"""Tests the reading of compiled programs against texts whose counts were made by hand."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.benchmark import hlo

COLLECTIVES = """
  %all-reduce.1 = (f32[128]{0}, bf16[2,3]{1,0:T(8,128)}) all-reduce(%a, %b), replica_groups={{0,1},{2,3}}, to_apply=%add
  %all-reduce.2 = f32[] all-reduce(%c), channel_id=2, metadata={op_name="x = y all-gather("}
  ROOT %g = (s32[4]{0}) tuple(%all-reduce.2)
  %p = pred[7]{0} all-gather-start(%d), dimensions={0}
  %r = (f32[3]{0:T(128)}, f32[12]{0:T(128)}) all-gather-start(%d), replica_groups=[2,4]<=[8], dimensions={0}
  %s = f32[12]{0:T(128)} all-gather-done(%r)
  %q = f8e4m3fn[16]{0} collective-permute(%e), source_target_pairs={{0,1},{1,2},{2,0}}
  %t = (s8[5]{0:T(128)}, s8[5]{0:T(128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%f), channel_id=3
"""
PROGRAM = """
%fused (x: f32[8,128]) -> f32[8,128] {
  ROOT %y = f32[8,128]{1,0:T(8,128)} add(%x, %x)
}

ENTRY %main (x: f32[128,200], n: bf16[3,5,2]) -> (f32[3]) {
  %x.1 = f32[128,200]{0,1:T(8,128)} parameter(0), sharding={replicated}
  %n = bf16[3,5,2]{2,1,0:T(8,128)(2,1)} parameter(1)
  %copy-start = (f32[128,200]{0,1:T(8,128)S(1)}, f32[128,200]{0,1:T(8,128)}, u32[]{:S(2)}) copy-start(%x.1)
  %copy-done = f32[128,200]{0,1:T(8,128)S(1)} copy-done(%copy-start)
  %two = (f32[3]{0:T(128)}, f32[130]{0:T(128)}) fusion(%copy-done, %n), kind=kOutput, metadata={op_name="%x.1"}
  %first = f32[3]{0:T(128)} get-tuple-element(%two), index=0
  %near = f32[3]{0:T(128)S(1)} negate(%first)
  ROOT %out = (f32[3]{0:T(128)}) tuple(%first)
}
"""


def test_collectives_are_read_with_the_bytes_of_their_results_and_their_devices():
    assert list(hlo.collectives(COLLECTIVES)) == [
        ('all-reduce', 128 * 4 + 6 * 2, 2),
        ('all-reduce', 4, None),
        ('all-gather', 7, None),
        ('all-gather', 12 * 4, 4),
        ('collective-permute', 16, 3),
        ('collective-permute', 5, None),
    ]
    assert hlo.totals(COLLECTIVES) == {
        'all-reduce': (2, 128 * 4 + 6 * 2 + 4),
        'all-gather': (2, 7 + 48),
        'collective-permute': (2, 16 + 5),
    }


def test_collectives_of_a_program_over_devices():
    mesh = Mesh(np.array(jax.devices()[:4]), ('x',))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (('x',), ()))
    x = jax.ShapeDtypeStruct((8, 5), np.float32, sharding=split)
    text = jax.jit(lambda x: x.sum(0), out_shardings=whole).lower(x).compile().as_text()
    assert list(hlo.collectives(text)) == [('all-reduce', 5 * 4, 4)]
    assert hlo.totals(jax.jit(lambda x: x + 1, out_shardings=split).lower(x).compile().as_text()) == {}


def test_memory_is_counted_with_the_padding_of_tiles():
    """Tiles are 8 x 128 along the two fastest axes; what another memory holds and what a fusion does is left out."""
    matrix, small = 128 * 200 * 4, 3 * 8 * 128 * 2
    found = hlo.memory(PROGRAM)
    assert found.arguments == (matrix + 30 * 2, matrix + small)
    # The copy reads the matrix, the fusion the small argument, and the negation the fusion's first result.
    assert found.read == (matrix + 30 * 2 + 3 * 4, matrix + small + 128 * 4)
    assert found.written == (3 * 4 + 130 * 4, 128 * 4 + 256 * 4)
    assert found.moved == found.read.stored + found.written.stored


def test_estimates_of_the_compiler_are_summed_by_the_name_of_the_operation():
    name = 'op_name="jit(train_step)/shard_map/transpose(jvp(visual))/conv1/conv_general_dilated"'
    text = f"""
ENTRY %main (x: f32[8]) -> f32[8] {{
  %a = f32[8]{{0}} fusion(%x), metadata={{{name}}}, backend_config={{"window_config":{{"estimated_cycles":"40"}}}}
  %b = f32[8]{{0}} fusion(%a), metadata={{{name}}}, backend_config={{"window_config":{{"estimated_cycles":"2"}}}}
  %c = f32[8]{{0}} fusion(%b), backend_config={{"window_config":{{"estimated_cycles":"7"}}}}
  ROOT %d = f32[8]{{0}} negate(%c), metadata={{{name}}}
}}
"""
    assert hlo.estimates(text) == {'train_step/visual/conv1/conv_general_dilated f32[8]': 42, 'no name f32[8]': 7}


def test_tiles_of_tiles_and_types_of_less_than_a_byte():
    text = 'ENTRY %m {\n  %a = {} parameter(0)\n}'
    for shape, stored in (
        ('pred[3]{0:T(512)(128)(4,1)}', 512),
        ('bf16[2,9,200]{2,1,0:T(8,128)(2,1)}', 2 * 16 * 256 * 2),
        ('bf16[160,64,64,3]{0,3,2,1:T(4,128)(2,1)}', 64 * 64 * 4 * 256 * 2),
        ('s4[6]{0}', 3),
        ('f32[]{:T(128)}', 512),
        ('f32[5,7]', 140),
    ):
        assert hlo.memory(text.replace('{}', shape, 1)).arguments.stored == stored, shape

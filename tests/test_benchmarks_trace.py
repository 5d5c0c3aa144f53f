"""benchmarks.trace: operations by name, with their scopes, from made-up profiles and from a real one."""

import types

import jax
import jax.numpy as jnp
import pytest

from benchmarks import trace

PROGRAM = """
  %fused (x: f32[2]) -> f32[2] {
    ROOT %add.1 = f32[2]{0} add(%x, %x), metadata={op_name="jit(step)/visual/add"}
  }
  %loop_fusion.3 = f32[2]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/visual/relu" x=1}
  %cudnn-conv.7 = (bf16[2]{0}, u8[0]{0}) custom-call(%x), metadata={op_name="jit(step)/audio/conv"}
"""


def event(name, nanoseconds, operation=None):
    stats = [] if operation is None else [('hlo_op', operation)]
    return types.SimpleNamespace(name=name, duration_ns=nanoseconds, stats=stats)


def profile(**planes):
    def lines(events):
        return [types.SimpleNamespace(name=name, events=each) for name, each in events.items()]

    return types.SimpleNamespace(
        planes=[types.SimpleNamespace(name=name, lines=lines(events)) for name, events in planes.items()]
    )


def test_scopes_are_read_from_the_program():
    assert trace.scopes_of(PROGRAM) == {
        'add.1': 'jit(step)/visual/add',
        'loop_fusion.3': 'jit(step)/visual/relu',
        'cudnn-conv.7': 'jit(step)/audio/conv',
    }


def test_kernels_of_a_graph_go_by_their_own_name_and_the_host_is_left_out():
    stream = [
        event('loop_fusion.3', 3e6, 'command_buffer_1'),
        event('loop_fusion.3', 1e6, 'command_buffer_1'),
        event('sm90_kernel', 2e6, 'cudnn-conv.7'),
        event('memcpy', 2e6),
    ]
    made = profile(**{
        '/device:GPU:0': {'Stream #1': stream, 'XLA Modules': [event('jit_step', 9e9)]},
        '/host:CPU': {'python': [event('call', 9e9, 'call')]},
    })  # fmt: skip
    rows = trace.operations(made, trace.scopes_of(PROGRAM))
    assert [(row['name'], row['events'], row['share']) for row in rows] == [
        ('loop_fusion.3', 2, 0.5), ('cudnn-conv.7', 1, 0.25), ('memcpy', 1, 0.25),
    ]  # fmt: skip
    assert rows[0]['seconds'] == pytest.approx(4e-3) and rows[1]['scope'] == 'jit(step)/audio/conv'


def test_a_real_profile_names_the_product(tmp_path, capsys):
    x = jnp.ones((64, 64))
    compiled = jax.jit(lambda x: jnp.tanh(x @ x)).lower(x).compile()
    with jax.profiler.trace(str(tmp_path)):
        jax.block_until_ready(compiled(x))
    (tmp_path / trace.PROGRAM).write_text(compiled.as_text())
    assert trace.main([str(tmp_path), '--top=5', f'--out={tmp_path / "rows.json"}']) == 0
    assert 'dot_general' in capsys.readouterr().out


def test_a_folder_without_a_trace_is_one_line(tmp_path, capsys):
    assert trace.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count('\n') == 1

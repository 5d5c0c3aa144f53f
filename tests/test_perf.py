"""FLOPs are tested against the formula, utilisation against a hand count, and the compile cache across processes."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest

from stattn_jax.runtime import perf


@dataclasses.dataclass
class Device:
    device_kind: str


def test_flops_of_convolution_and_matmul_are_the_analytic_count():
    b, h, w, c, k, d, n = 4, 16, 16, 8, 3, 32, 64

    def network(frames, filters, head):
        x = jax.lax.conv_general_dilated(frames, filters, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return x.reshape(-1, d) @ head

    shapes = ((b, h + k - 1, w + k - 1, c), (k, k, c, d), (d, n))
    lowered = jax.jit(network).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    analytic = 2 * b * h * w * (k * k * c * d + d * n)
    assert perf.lowered_flops(lowered) == pytest.approx(analytic, rel=0.1)


def test_flops_of_a_gradient_are_about_three_times_the_forward_pass():
    def loss(weights, x):
        return (jnp.tanh(x @ weights[0]) @ weights[1]).sum()

    abstract = [jax.ShapeDtypeStruct((256, 256), jnp.float32)] * 2, jax.ShapeDtypeStruct((128, 256), jnp.float32)
    forward = perf.lowered_flops(jax.jit(loss).lower(*abstract))
    both = perf.lowered_flops(jax.jit(jax.grad(loss)).lower(*abstract))
    assert forward == pytest.approx(2 * 2 * 128 * 256 * 256, rel=0.1)
    # Two matmuls forward, two for the weights, one for the hidden layer; the last forward one is not needed.
    assert both / forward == pytest.approx(2.0, rel=0.1)


def test_no_flops_is_none():
    assert perf.lowered_flops(jax.jit(lambda x: x).lower(jnp.zeros(3))) is None


def test_utilisation_is_the_share_of_the_peak():
    devices = [Device('NVIDIA H100 80GB HBM3')] * 8
    # 8 devices of 989.5 TFLOP/s do 791.6 TFLOP in a tenth of a second; 395.8 TFLOP is half of that.
    assert perf.mfu(395.8e12, 0.1, devices) == pytest.approx(0.5)
    assert perf.mfu(None, 0.1, devices) is None
    assert perf.mfu(1e12, 0.1, jax.devices()) is None


@pytest.mark.parametrize(
    ('kind', 'peak', 'least'),
    [
        ('NVIDIA H200', 989.5e12, 1 / 4.8),
        ('NVIDIA A100-SXM4-80GB', 312e12, 1 / 2.039),
        ('NVIDIA L4', 121e12, 1 / 0.3),
        ('TPU v5 lite', 197e12, 1 / 0.819),
        ('TPU v5', 459e12, 1 / 2.765),
        ('TPU v3', 61.5e12, 1 / 0.45),
        ('NVIDIA L40', None, None),
        ('NVIDIA H100 80GB HBM3 MIG 1g.10gb', None, None),
        ('Tesla V100-SXM2-16GB', None, None),
        ('cpu', None, None),
    ],
)
def test_peaks_are_known_by_exact_name_only(kind, peak, least):
    assert perf.peak_flops(Device(kind)) == peak
    assert perf.floor_seconds(1e12, Device(kind)) == pytest.approx(least)
    assert perf.floor_seconds(None, Device(kind)) is None


CACHED = """
import sys
import jax, jax.numpy as jnp
from stattn_jax.runtime import perf
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith('/cache_hits') else None)
perf.enable_compile_cache(sys.argv[1])
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
print(len(hits))
"""


def test_compile_cache_serves_the_second_process(tmp_path):
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1]))
    command = [sys.executable, '-c', CACHED, str(tmp_path)]
    hits = [
        int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300).stdout)
        for _ in range(2)
    ]
    assert hits[0] == 0 < hits[1]
    assert any(tmp_path.iterdir())


def test_other_convolutions_are_requested_where_those_of_xla_are_slow_and_the_user_chose_none(monkeypatch):
    monkeypatch.setattr(jaxlib.version, '__version__', '0.10.2')
    for flags in ('', '--xla_cpu_enable_fast_math=false', 'intra_op_parallelism_threads=16'):
        monkeypatch.setenv('XLA_FLAGS', flags)
        assert list(perf.compile_options()) == ['xla_cpu_experimental_ynn_fusion_type']
    monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT')
    assert perf.compile_options() is None
    monkeypatch.setenv('XLA_FLAGS', '')
    monkeypatch.setattr(jaxlib.version, '__version__', '0.12.0')
    assert perf.compile_options() is None


@pytest.mark.skipif(jax.__version_info__[:2] != (0, 10), reason='about jaxlib 0.10')
def test_the_requested_option_is_known_to_xla_and_changes_the_program(monkeypatch):
    lowered = jax.jit(
        lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    ).lower(np.ones((8, 56, 56, 64), np.float32), np.ones((3, 3, 64, 64), np.float32))
    assert 'ynn' in lowered.compile().as_text()
    monkeypatch.setenv('XLA_FLAGS', '')
    assert 'ynn' not in lowered.compile(compiler_options=perf.compile_options()).as_text()

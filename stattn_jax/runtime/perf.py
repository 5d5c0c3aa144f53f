"""The cost of a step: its FLOPs as counted by XLA, the peak of the device, and the cache of compiled programs.

summaries.py prints these numbers in the log line.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jaxlib.version

from stattn_jax import files

# Peak dense bfloat16 FLOP/s and bytes/s from memory of one JAX device by `device_kind`. The names must match exactly,
# because a MIG slice is not the whole card and an L40 is not an L4. Sources: NVIDIA data sheets (half of the figure
# with sparsity) and Google Cloud TPU documentation, per chip. On TPU v2 and v3 each of a chip's two cores is a device,
# hence half of 45 and 123 TFLOP/s. V100 and T4 are left out: they have no bfloat16 units, so their
# utilisation would be meaningless.
PEAKS = {
    'NVIDIA B200': (2250e12, 8.0e12),
    'NVIDIA GH200 480GB': (989.5e12, 4.0e12),
    'NVIDIA H200': (989.5e12, 4.8e12),
    'NVIDIA H200 NVL': (835.5e12, 4.8e12),
    'NVIDIA H100 80GB HBM3': (989.5e12, 3.35e12),
    'NVIDIA H100 NVL': (835.5e12, 3.9e12),
    'NVIDIA H100 PCIe': (756.5e12, 2.0e12),
    'NVIDIA A100-SXM4-40GB': (312e12, 1.555e12),
    'NVIDIA A100-SXM4-80GB': (312e12, 2.039e12),
    'NVIDIA A100-PCIE-40GB': (312e12, 1.555e12),
    'NVIDIA A100 80GB PCIe': (312e12, 1.935e12),
    'NVIDIA L40S': (362e12, 0.864e12),
    'NVIDIA L4': (121e12, 0.3e12),
    'TPU v6 lite': (918e12, 1.64e12),
    'TPU v6e': (918e12, 1.64e12),
    'TPU v5p': (459e12, 2.765e12),
    'TPU v5': (459e12, 2.765e12),  # the `device_kind` that a v5p reports
    'TPU v5 lite': (197e12, 0.819e12),
    'TPU v5e': (197e12, 0.819e12),
    'TPU v4': (275e12, 1.2288e12),
    'TPU v3': (61.5e12, 0.45e12),
    'TPU v2': (22.5e12, 0.35e12),
}

# Environment of a process that computes on a CPU, to be set before it starts: glibc then requests large pages for large
# blocks. XLA allocates all memory of a step anew at each step, and the system clears it page by page (docs/log.md,
# 2026-11-23, sums on the CPU).
LARGE_PAGES = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}


def compile_options() -> dict[str, str] | None:
    """Returns the XLA options for a run's programs and explanations: YNNPACK is disabled on a CPU with jaxlib 0.10.

    Returns None where there is nothing to set. The convolutions of YNNPACK, which jaxlib 0.10 prefers, make a training
    step of the demo take 1.3 times as long on several threads, and 1.08 times on one core; with jaxlib 0.12 YNNPACK is
    faster (docs/log.md, 2026-11-23, the CPU; 2026-11-28). No option is set there, nor where XLA_FLAGS mention YNNPACK.
    """
    slow = jax.default_backend() == 'cpu' and jaxlib.version.__version__.startswith('0.10.')
    flags = os.environ.get('XLA_FLAGS', '')
    return {'xla_cpu_experimental_ynn_fusion_type': ''} if slow and 'ynn' not in flags else None


def compile_options_once() -> dict[str, int] | None:
    """Returns the XLA options for a program that runs once: on a CPU, LLVM does not optimise it.

    The initial state of the demo's network then takes 2.3 instead of 7.5 seconds of one core, and that of two ResNet-18
    9 instead of 19 (docs/log.md, 2026-11-27, compile time). Results may differ in rounding.
    """
    return {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None


def lowered_flops(lowered: Any) -> float | None:
    """Returns the FLOPs of a lowered (not yet compiled) function, None where the backend does not report them.

    For `jax.jit` of global arrays the count covers all devices together; for a function mapped over devices (shard_map,
    pmap) it covers one device (measured, jax 0.10.2). A scan counts as one of its steps, and a recomputed (remat) block
    counts each time.
    """
    flops = (lowered.cost_analysis() or {}).get('flops')
    return float(flops) if flops and flops > 0 else None


def peak_flops(device: jax.Device) -> float | None:
    """Returns the peak dense bfloat16 FLOP/s of a device, None when its kind is not in the table."""
    return PEAKS.get(device.device_kind, (None, None))[0]


def floor_seconds(moved_bytes: float | None, device: jax.Device) -> float | None:
    """Returns the least time in which a device can move the bytes that its program reads and writes.

    Returns None where either the bytes or the device's bandwidth is unknown.
    """
    bandwidth = PEAKS.get(device.device_kind, (None, None))[1]
    return None if moved_bytes is None or bandwidth is None else moved_bytes / bandwidth


def mfu(flops_per_step: float | None, seconds_per_step: float, devices: Sequence[jax.Device]) -> float | None:
    """Returns the model FLOPs utilisation (0..1): FLOPs of a step on all devices over their peak FLOPs in that time.

    Returns None when the FLOPs or the peak of the devices are unknown. Source: PaLM, arXiv 2204.02311, appendix B.
    """
    peak = peak_flops(devices[0])
    if flops_per_step is None or peak is None:
        return None
    return flops_per_step / (seconds_per_step * len(devices) * peak)


def enable_compile_cache(directory: str) -> None:
    """Keeps every compiled program in `directory` for later runs; call it before the first compilation.

    Never use a folder that others can write to: whoever can write there can run code here (JAX documentation).
    """
    files.make_folder(directory)
    jax.config.update('jax_compilation_cache_dir', str(directory))
    # By default, only programs that took a second to compile are kept, but the many small ones of a start add up too.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)

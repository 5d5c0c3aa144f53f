"""What a step costs: its FLOPs as XLA counts them, the peak of the device, and the cache of compiled programs.

Read next: `summaries.py`, where these numbers become the log line.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jaxlib.version

# Peak dense bfloat16 FLOP/s and bytes/s from memory of one JAX device by `device_kind`; exact names, for a MIG slice is
# not the whole card and an L40 no L4. NVIDIA data sheets (half of the figure with sparsity), Google Cloud TPU
# documentation, per chip; TPU v2 and v3 show each of a chip's two cores as a device, hence half of 45 and 123 TFLOP/s.
# V100 and T4 have no bfloat16
# units and are left out: a share of what they cannot do says nothing.
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
    'TPU v5': (459e12, 2.765e12),  # how v5p calls itself
    'TPU v5 lite': (197e12, 0.819e12),
    'TPU v5e': (197e12, 0.819e12),
    'TPU v4': (275e12, 1.2288e12),
    'TPU v3': (61.5e12, 0.45e12),
    'TPU v2': (22.5e12, 0.35e12),
}

# For the environment of a process that computes on a CPU, before it starts: glibc asks for large pages for large
# blocks. XLA takes all memory of a step anew at each step, and the system clears it page by page (docs/log.md,
# 2026-11-23, sums on the CPU).
LARGE_PAGES = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}


def compile_options() -> dict[str, str] | None:
    """What XLA is asked for beyond its own choices by a run's programs and explanations, None for nothing: not YNNPACK
    on a CPU.

    Its convolutions, which jaxlib 0.10 prefers, make a training step of the demo take 1.3 times as long on several
    threads; on one they are level, in jaxlib 0.12 faster (docs/log.md, 2026-11-23, the CPU). So nothing is asked there,
    nor where XLA_FLAGS name it.
    """
    slow = jax.default_backend() == 'cpu' and jaxlib.version.__version__.startswith('0.10.')
    said = os.environ.get('XLA_FLAGS', '')
    spoken = 'ynn' in said or 'intra_op_parallelism_threads=1' in said.split()
    return {'xla_cpu_experimental_ynn_fusion_type': ''} if slow and not spoken else None


def lowered_flops(lowered: Any) -> float | None:
    """FLOPs of a lowered (not yet compiled) function, None where the backend does not say.

    For `jax.jit` of global arrays the count is of all devices together, for a function mapped over them (shard_map,
    pmap) of one (measured, jax 0.10.2); a scan counts as one of its steps, and a recomputed (remat) block counts each
    time.
    """
    flops = (lowered.cost_analysis() or {}).get('flops')
    return float(flops) if flops and flops > 0 else None


def peak_flops(device: jax.Device) -> float | None:
    """Peak dense bfloat16 FLOP/s of a device, None when its kind is not in the table."""
    return PEAKS.get(device.device_kind, (None, None))[0]


def floor_seconds(moved_bytes: float | None, device: jax.Device) -> float | None:
    """The least time in which a device can move the bytes that its program reads and writes; None where either is
    unknown.
    """
    bandwidth = PEAKS.get(device.device_kind, (None, None))[1]
    return None if moved_bytes is None or bandwidth is None else moved_bytes / bandwidth


def mfu(flops_per_step: float | None, seconds_per_step: float, devices: Sequence[jax.Device]) -> float | None:
    """Model FLOPs utilisation (0..1): FLOPs of a step on all devices over what they could do in that time.

    None when the FLOPs or the peak of the devices are unknown. Source: PaLM, arXiv 2204.02311, appendix B.
    """
    peak = peak_flops(devices[0])
    if flops_per_step is None or peak is None:
        return None
    return flops_per_step / (seconds_per_step * len(devices) * peak)


def enable_compile_cache(directory: str) -> None:
    """Keeps every compiled program in `directory`, to be found by later runs; call it before the first compilation.

    Never a folder that others can write to: who can write there can run code here (JAX documentation).
    """
    jax.config.update('jax_compilation_cache_dir', str(directory))
    # The defaults keep only what took a second to compile; the small programs of a start add up too.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)

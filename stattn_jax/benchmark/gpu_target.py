"""Describes GPUs to XLA, so that it can compile for them on a machine that has none.

XLA reads a description as text (GpuTargetConfigProto). The algorithms of cuDNN are chosen on a card only, so a program
compiled in this way does not count their workspaces, and it cannot run.
"""

# Figures by device_kind, from xla/backends/gpu/target_config/specs of openxla/xla, 2026-11-27: compute capability,
# multiprocessors, float32 units and shared memory of each, shared memory of a block, clock (GHz), L2 cache (bytes).
_FIGURES = {
    'NVIDIA A100-SXM4-80GB': ('major: 8 feature_extension: NONE', 108, 64, 167936, 166912, 1.41, 41943040),
    'NVIDIA H100 80GB HBM3': ('major: 9 feature_extension: ACCELERATED_FEATURES',
                              132, 128, 233472, 232448, 1.98, 52428800),
}  # fmt: skip
# Limits that all of these cards share.
_LIMITS = """
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  shared_memory_per_block: 49152 registers_per_core_limit: 65536 registers_per_block_limit: 65536
"""


def description(kind: str, memory_bytes: int, bandwidth: float) -> str:
    """Returns the description of a card by its device_kind, bytes of memory, and bytes/s of it."""
    capability, cores, units, shared, shared_of_block, clock, cache = _FIGURES[kind]
    return f"""
gpu_device_info {{{_LIMITS}
  cuda_compute_capability {{ {capability} }} core_count: {cores} fpus_per_core: {units}
  shared_memory_per_core: {shared} shared_memory_per_block_optin: {shared_of_block}
  clock_rate_ghz: {clock} l2_cache_size: {cache}
  memory_bandwidth: {int(bandwidth)} device_memory_size: {memory_bytes}
}}
platform_name: "CUDA" device_description_str: "{kind}"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 12 minor: 8 patch: 0 }}
"""

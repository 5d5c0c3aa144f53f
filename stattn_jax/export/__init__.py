"""Exports trained networks for use without this package: StableHLO by jax.export, and ONNX by jax2onnx."""

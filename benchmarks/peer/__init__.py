"""The network and its training step in PyTorch, for timing comparisons: `python -m benchmarks.peer --help`."""

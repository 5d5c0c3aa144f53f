"""The network and its training step written in PyTorch, to race against: `python -m benchmarks.peer --help`. Read
next: __main__.py.
"""

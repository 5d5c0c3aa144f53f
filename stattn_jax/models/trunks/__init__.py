"""Trunks: networks that encode a frame or a log-mel segment, without pooling over cells and without a classifier.

`registry.py` lists them. To add a trunk, add a module here and its name in `registry.py`.
"""

"""Trunks: networks that read a frame or a log-mel segment, without pooling over cells and without a classifier.

`registry.py` lists them; a new trunk is one file here and one line there.
"""

"""Published weights for the trunks: read without PyTorch, matched by name, with hash and licence.

Read next: reading.py (files to tensors), match.py (tensors into a trunk), find.py (which file), __main__.py (the
command).
"""

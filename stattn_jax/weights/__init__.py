"""Published weights for the trunks: read without PyTorch, matched by name, and recorded with hash and licence.

formats.py reads files to tensors, match.py fills a trunk with tensors, find.py finds the file, and __main__.py is the
command.
"""

"""Saves trained networks as folders that others can open, and opens them: safetensors, JSON and a model card.

shared_folder.py defines the format, card.py writes the model card, and lookup.py finds a folder by its path or name.
The folder `demo` holds the network that is part of the package.
"""

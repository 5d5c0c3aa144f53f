"""The list of trunks: how each is built, its input, and how its published weights name their tensors.

A trunk is a module of this package with a dict TRUNKS of `Trunk` entries (trunk.py), and its name in `_modules` below.
"""

from stattn_jax.models.trunks import ast, cnn14, efficientnet_lite, resnet, small, vggish, vit
from stattn_jax.models.trunks.trunk import Trunk


def trunks(modality: str) -> dict[str, Trunk]:
    """Returns the trunks of a modality, 'visual' or 'audio', by their name in config.model.visual or .audio."""
    return {name: trunk for module in _modules() for name, trunk in module.TRUNKS[modality].items()}


def find(modality: str, name: str) -> Trunk:
    """Returns one trunk; raises ValueError, which lists the known names, if there is none of this name."""
    known = trunks(modality)
    if name not in known:
        raise ValueError(f'config.model.{modality} is {name!r}; expected one of {", ".join(known)}, precomputed')
    return known[name]


def _modules():
    return small, resnet, efficientnet_lite, vit, vggish, cnn14, ast

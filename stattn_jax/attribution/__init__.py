"""Attribution: post-hoc explanations of any JAX network of audio-visual clips, and tests of explanations.

explainers.py explains a `Classifier`; removal.py removes parts of a clip; perturb.py scores removals in the order of a
map; sanity.py tests whether maps depend on the network and the clip. docs/attribution.md has examples.
"""

from stattn_jax.attribution.arrays import ClipArrays, Map
from stattn_jax.attribution.classifier import Classifier, of_model
from stattn_jax.attribution.explainers import EXPLAINERS, explain

__all__ = ['EXPLAINERS', 'ClipArrays', 'Classifier', 'Map', 'explain', 'of_model']

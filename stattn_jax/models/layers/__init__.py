"""Convolutions, max pooling, batch normalisation and dense layers, each as a plain Flax layer and in faster forms.

All forms have the same parameters and, up to rounding, the same results; cpu.py, gpu.py and tpu.py state what their
forms are for. Every layer has an attribute `form`, one of FORMS. A new layer takes the form of the platform that JAX
computes on, and `set_form` changes it for a whole network. Forward-mode derivatives of all layers are defined in the
form 'plain'.
"""

import jax
from flax import nnx

FORMS = ('plain', 'cpu', 'gpu', 'tpu')
AUTO = 'auto'
# Platforms that are not listed get the plain layers. On a TPU, batch normalisation alone differs from them, in one pass
# (tpu.py): the compiler counts a fifth fewer bytes and estimates a quarter fewer cycles for a block of a ResNet, but
# several times as many for the GPU's first convolution and max pool (docs/benchmarks.md; nothing was run on a TPU).
_OF_PLATFORM = {'cpu': 'cpu', 'gpu': 'gpu', 'cuda': 'gpu', 'rocm': 'gpu', 'tpu': 'tpu'}


def form_of_platform(platform: str | None = None) -> str:
    """Returns the form for a platform, by default for the one that JAX computes on."""
    return _OF_PLATFORM.get(platform or jax.default_backend(), 'plain')


def set_form(network: nnx.Module, form: str) -> None:
    """Sets the form of all layers of a network, in place: one of FORMS, or 'auto' for that of the platform.

    Raises ValueError for another form.
    """
    if form not in (AUTO, *FORMS):
        raise ValueError(f'model.layers is {form!r}; expected one of {", ".join((AUTO, *FORMS))}')
    form = form_of_platform() if form == AUTO else form
    for _, module in nnx.iter_modules(network):
        if hasattr(module, 'form'):
            module.form = form

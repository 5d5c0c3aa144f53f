"""Space-time attention for audio-visual explanations: `load(workdir).explain('clip.mp4')` names, locates and adds up the evidence.

Importing this is cheap: JAX loads with the first `load`. Read next: main.py (commands), docs/design.md (the house).
"""

__version__ = '0.1.0'


def load(workdir):
    """The model trained in `workdir`, ready to `explain` video files; see explain/model.py."""
    from stattn_jax.explain import model

    return model.load(workdir)


def __getattr__(name):
    if name == 'Explanation':
        from stattn_jax.explain.explanation import Explanation

        return Explanation
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

"""A classifier of video clips that explains its predictions by audio-visual evidence (space-time attention).

A trained model names the classes of a clip, shows where in the frame and when in the clip the evidence lies, and gives
the contribution of each cell and each segment to the logit.

    model = stattn_jax.load('run')            # explain/model.py, Model; or from_pretrained('demo'), which is shipped
    e = model.explain('clip.mp4')             # explain/result.py, Explanation; a list of files gives a list
    e.top(5)                                  # [{'label', 'logit', 'probability'}, ...]
    reference, visual_thw, audio_t = e.contributions('dog')    # they sum to the logit
    e.save_html('clip.html')                  # also json, npz, png, video (mp4), csv, vtt

Importing this package is cheap, because JAX is imported by the first call of `load`. main.py holds the commands, and
docs/design.md describes the package.
"""

import os

from stattn_jax.version import __version__ as __version__

# Warnings of XLA (lines that begin with W0000) are for its developers. JAX reads this when it is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')


def load(workdir):
    """Loads the model trained in `workdir` onto the first device: its best checkpoint, or else the latest.

    `workdir` may also be a folder that `save_pretrained` wrote. Returns a Model of explain/model.py. Its methods are
    `explain(video, start=None, end=None)` for a file or a list of files, `explain_arrays(frames uint8 [t h w 3],
    waveform float32 [n], rate)`, `explain_long(video)` for the whole of a long file, and `save_pretrained(directory)`
    to share the model. Raises run.RunError where there is no model.
    """
    from stattn_jax.explain import model

    return model.load(workdir)


def from_pretrained(name, revision=None):
    """Loads a shared model: a folder that `save_pretrained` wrote, a shipped one, or OWNER/NAME on the hub.

    Shipped are 'demo' (drawn shapes) and 'av_digits' (voices and handwriting). The hub is that of Hugging Face; it
    needs the extra `hub` and, the first time, a connection. `revision` is a branch, a tag or a commit there. Returns a
    Model as `load` does; raises run.RunError.
    """
    from stattn_jax.explain import model

    return model.from_pretrained(name, revision)


def __getattr__(name):
    if name == 'Explanation':
        from stattn_jax.explain.result import Explanation

        return Explanation
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

"""Space-time attention for audio-visual explanations: `load(workdir).explain('clip.mp4')` names, locates and adds up
the evidence.

    model = stattn_jax.load('run')            # explain/model.py, Model
    e = model.explain('clip.mp4')             # explain/explanation.py, Explanation; a list of files gives a list
    e.top(5)                                  # [{'label', 'logit', 'probability'}, ...]
    reference, visual_thw, audio_t = e.contributions('dog')    # they sum to the logit
    e.save_html('clip.html')                  # also json, npz, png, video (mp4), csv, vtt

Importing this is cheap: JAX loads with the first `load`. Read next: main.py (commands), docs/design.md (the house).
"""

__version__ = '0.1.0'


def load(workdir):
    """The model trained in `workdir`, an explain/model.py Model, on the first device: its best checkpoint, or the
    latest.

    Its methods: `explain(video, start=None, end=None)` of a file or a list of files, `explain_arrays(frames uint8 [t h
    w 3], waveform float32 [n], rate)`, `explain_long(video)` of all of a long file. Raises run.RunError where there is
    no model.
    """
    from stattn_jax.explain import model

    return model.load(workdir)


def __getattr__(name):
    if name == 'Explanation':
        from stattn_jax.explain.explanation import Explanation

        return Explanation
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

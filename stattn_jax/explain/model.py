"""From a trained workdir and a video file to an `Explanation`. Read next: explanation.py."""

import dataclasses
import functools
import hashlib
import os
import pathlib

import jax
import numpy as np

from stattn_jax import run
from stattn_jax.data import features, media, pipeline
from stattn_jax.explain.explanation import Explanation, make_geometry
from stattn_jax.training import step


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network ready to explain videos; make one with `stattn_jax.load(workdir)`."""

    trained: run.Trained

    def explain(self, video: str | os.PathLike, start: float | None = None, end: float | None = None) -> Explanation:
        """Explains the stretch start..end (seconds) of a video file; raises media.MediaError with a named reason."""
        trained = self.trained
        clip = media.read_clip(video, trained.facts.spec, start, end)
        config = trained.config
        arrays = pipeline.clip_arrays(clip, config.data.frame_size, config.data.fit)
        logits, out = self._forward(trained.state, {name: array[None] for name, array in arrays.items()})
        side = int(np.sqrt(out['alpha'].shape[-1]))
        grid = (trained.facts.spec.segments, side, side)
        affine = pipeline.frame_affine(clip.height, clip.width, config.data.fit)
        return Explanation.from_output(
            logits,
            out,
            mean_scores=np.asarray(trained.state['score_mean']),
            geometry=make_geometry(grid, trained.facts.spec.segment_seconds, affine, clip.height, clip.width),
            classes=trained.facts.classes,
            multi_label=run.is_binary(config, trained.facts),
            media=self._media(video, start, clip),
            model=self._identity(),
            valid=arrays['valid'],
            log_mel=arrays['log_mel'],
            frames=tuple(clip.frames),
        )

    @functools.cached_property
    def _forward(self):
        """The network as a compiled function of (state, batch); made once, so that only the first video waits for it."""
        graphdef, frame_size = self.trained.graphdef, self.trained.config.model.frame_size
        return jax.jit(lambda state, batch: step.forward(graphdef, state, batch, frame_size=frame_size))

    def _media(self, video, start, clip):
        with open(video, 'rb') as file:
            digest = hashlib.file_digest(file, 'sha256').hexdigest()
        return {
            'file': pathlib.Path(video).name,
            'sha256': digest,
            'start': float(start or 0.0),
            'duration': float(clip.duration),
            'height': clip.height,
            'width': clip.width,
            'notes': list(clip.notes),
        }

    def _identity(self):
        trained = self.trained
        return {
            'config_hash': run.config_hash(trained.config),
            'parameter_hash': run.parameter_hash(trained.state),
            'versions': run.versions(),
            'dtype': trained.config.model.dtype,
            'step': trained.step,
        }


def load(workdir: str | os.PathLike) -> Model:
    """The model trained in a workdir: its best checkpoint, the latest where none was selected; raises run.RunError."""
    trained = run.load(str(workdir), parallel_kind='jit', devices=jax.local_devices()[:1])
    if isinstance(trained.facts.spec, features.FeatureSpec):
        raise run.RunError(
            f'{workdir} was trained on features ({trained.facts.spec.source}), from which no video can be explained; '
            'expected the workdir of a run on videos'
        )
    return Model(trained)

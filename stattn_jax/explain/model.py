"""Computes `Explanation`s of videos with a trained model.

Two functions are compiled: the network's forward pass with the contributions, and the what-if questions, which only run
the attention again. result.py defines `Explanation`; long.py handles videos longer than the model's clip.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx

from stattn_jax import run, trunks
from stattn_jax.data import features, media, pipeline
from stattn_jax.explain import counterfactuals, long, reading
from stattn_jax.explain.explanation import BEST, make_geometry
from stattn_jax.explain.result import Explanation
from stattn_jax.models import contributions
from stattn_jax.runtime import perf
from stattn_jax.training import step

_SHARED = ('bias', 'mean_scores')
# Provenance fields of a trunk that the record keeps; local paths are left out.
_ORIGIN = ('modality', 'trunk', 'weights', 'sha256', 'licence')


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network that explains videos; `stattn_jax.load(workdir)` makes one."""

    trained: run.Trained
    # Number of clips per forward pass. More clips would need more memory and would not be faster on a CPU.
    batch: ClassVar[int] = 4

    def explain(
        self,
        video: str | os.PathLike | Sequence[str | os.PathLike],
        start: float | None = None,
        end: float | None = None,
    ) -> Explanation | list[Explanation]:
        """Explains seconds start..end of a video file, or of each of several files, with one Explanation each.

        If that part is longer than the model's clip, only its beginning is explained (note 'long'); `explain_long`
        explains all of it. Raises media.MediaError with the file and a named reason.
        """
        several = not isinstance(video, str | os.PathLike)
        readings = [self.read(one, start, end) for one in (video if several else [video])]
        explanations = self.explain_readings(readings)
        return explanations if several else explanations[0]

    def explain_arrays(self, frames_thwc: np.ndarray, waveform: np.ndarray, rate: int = 16000) -> Explanation:
        """Explains a clip given as arrays of frames and audio.

        `frames_thwc` is uint8 [t h w 3], upright, one frame for each segment's centre. `waveform` is mono float32 [n],
        full scale 1, at `rate` samples a second, and as long as the clip. Raises ValueError for other shapes.
        """
        return self.explain_readings([reading.of_arrays(frames_thwc, waveform, rate, self.spec)])[0]

    def explain_long(
        self,
        video: str | os.PathLike,
        hop: int | None = None,
        top_windows: int = 5,
        start: float | None = None,
        end: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> 'long.Timeline':
        """Explains all of a video with windows `hop` segments apart (default: half a window); see long.py.

        Calls `progress(done, all)` after each window. Raises media.MediaError, and ValueError for an invalid hop or
        number of windows.
        """
        return long.explain(self, video, hop, top_windows, start, end, progress)

    @property
    def spec(self) -> media.ClipSpec:
        """The clip format that the model expects."""
        return trunks.media_of(self.trained.facts.spec)

    def read(self, video: str | os.PathLike, start: float | None = None, end: float | None = None) -> reading.Reading:
        """Decodes a video for `explain_readings` in the model's clip format; raises media.MediaError."""
        return reading.read(video, self.spec, start, end)

    def explain_readings(self, readings: Sequence[reading.Reading]) -> list[Explanation]:
        """Explains clips that are already decoded, in batches of one size.

        Raises ValueError for logits that are not finite.
        """
        explanations = []
        for i in range(0, len(readings), self.batch):
            part = readings[i : i + self.batch]
            arrays, kept = self.record([one.clip for one in part], size=min(len(readings), self.batch))
            explanations += [self._explanation(one, arrays, kept, b) for b, one in enumerate(part)]
        return explanations

    def record(self, clips: Sequence[media.Clip], size: int) -> tuple[dict[str, np.ndarray], dict[str, jax.Array]]:
        """Returns the arrays of contributions.record for at most `size` clips, and the inputs of counterfactuals.ask.

        Rows after the last clip repeat it, so that the network is compiled for one batch size only.
        """
        config = self.trained.config
        rows = [pipeline.clip_arrays(clip, config.data.frame_size, config.data.fit) for clip in clips]
        rows += [rows[-1]] * (size - len(rows))
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        arrays, kept = self._forward(self.trained.state, batch)
        return jax.device_get(arrays), kept

    def geometry(self, clip: media.Clip, cells: int) -> dict[str, Any]:
        """Returns where the `cells` of a frame lie in the source frame of a clip."""
        side = int(np.sqrt(cells))
        affine = pipeline.frame_affine(clip.height, clip.width, self.trained.config.data.fit)
        grid = (self.spec.segments, side, side)
        return make_geometry(grid, self.spec.segment_seconds, affine, clip.height, clip.width)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """The fields that identify the model in the record."""
        trained = self.trained
        return {
            'config_hash': run.config_hash(trained.config),
            'parameter_hash': run.parameter_hash(trained.state),
            'versions': run.versions(),
            'dtype': trained.config.model.dtype,
            'step': trained.step,
            'trunks': [{name: one[name] for name in _ORIGIN} for one in trained.trunks],
        }

    @functools.cached_property
    def binary(self) -> bool:
        """True if the model uses an independent sigmoid per class."""
        return run.is_binary(self.trained.config, self.trained.facts)

    def _explanation(self, one: reading.Reading, arrays, kept, b: int) -> Explanation:
        mine = {name: array if name in _SHARED else array[b] for name, array in arrays.items()}
        best = np.argsort(-mine['logits'], kind='stable')[:BEST]
        order, by = counterfactuals.moved(one.clip.valid)
        silence = np.full(self.spec.mel_shape[1:], self.spec.silence, np.float32)
        mine_kept = {name: array[b] for name, array in kept.items()}
        answers = jax.device_get(self._ask(self.trained.state, mine_kept, best, order, silence))
        geometry = self.geometry(one.clip, mine['alpha'].shape[-1])
        classes = self.trained.facts.classes
        return Explanation.from_arrays(
            mine,
            geometry=geometry,
            classes=classes,
            multi_label=self.binary,
            media=one.media,
            model=self.identity,
            valid=np.asarray(one.clip.valid),
            log_mel=np.asarray(one.clip.log_mel),
            frames=tuple(one.clip.frames),
            removed_cells=answers['removed'].reshape(len(best), *geometry['grid']),
            removed_classes=tuple(classes[c] for c in best),
            trust=counterfactuals.trust(answers, classes, self.binary, one.clip.valid, by),
            source=one.source,
        )

    @functools.cached_property
    def _forward(self):
        """The forward pass: (state, batch) -> record and inputs for questions; compiled once per number of clips."""
        graphdef, frame_size = self.trained.graphdef, self.trained.config.model.frame_size

        def forward(state, batch):
            logits, out = step.forward(graphdef, state, batch, frame_size=frame_size)
            kept = {name: out[name] for name in ('keys', 'values', 'audio')} | {'valid': batch['valid']}
            return contributions.record(logits, out, state['score_mean'], self.binary), kept

        return jax.jit(forward, compiler_options=perf.compile_options())

    @functools.cached_property
    def _ask(self):
        def ask(state, *asked):
            return counterfactuals.ask(nnx.merge(self.trained.graphdef, state['params'], state['rest']), *asked)

        return jax.jit(ask)


def load(workdir: str | os.PathLike) -> Model:
    """Loads the best checkpoint of a run directory (workdir), or the latest where none was selected as best.

    Raises run.RunError.
    """
    trained = run.load(str(workdir), parallel_kind='jit', devices=jax.local_devices()[:1])
    if trained.config.model.kind != 'stan':
        raise run.RunError(
            f'{workdir} was trained with config.model.kind {trained.config.model.kind!r}, whose logits are no sum of '
            "terms; expected 'stan'"
        )
    if isinstance(trained.facts.spec, features.FeatureSpec):
        raise run.RunError(
            f'{workdir} was trained on features ({trained.facts.spec.source}), from which no video can be explained; '
            'expected the workdir of a run on videos'
        )
    # A run trained on features that its own trunks extracted can also read videos.
    return Model(run.reading(trained, trunks.media_of(trained.facts.spec)))

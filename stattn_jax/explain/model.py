"""From a trained workdir and videos to `Explanation`s, by two compiled functions: the network with its terms, and the
questions that need only its attention. Read next: explanation.py, long.py (videos longer than the model's clip).
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
from stattn_jax.explain import long, questions, reading
from stattn_jax.explain.explanation import BEST, Explanation, make_geometry
from stattn_jax.models import contributions
from stattn_jax.runtime import perf
from stattn_jax.training import step

_SHARED = ('bias', 'mean_scores')
# Of where a trunk's weights come from, without the paths of this machine.
_ORIGIN = ('modality', 'trunk', 'weights', 'sha256', 'licence')


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network ready to explain videos; make one with `stattn_jax.load(workdir)`."""

    trained: run.Trained
    # Clips that one call of the network explains. More would cost memory and, on a CPU, win no time.
    batch: ClassVar[int] = 4

    def explain(
        self,
        video: str | os.PathLike | Sequence[str | os.PathLike],
        start: float | None = None,
        end: float | None = None,
    ) -> Explanation | list[Explanation]:
        """Explains the stretch start..end (seconds) of a video file, or of each of several files, one Explanation each.

        A stretch longer than the model's clip is explained from its start on (note 'long'; `explain_long` takes all of
        it). Raises media.MediaError with the file and a named reason.
        """
        several = not isinstance(video, str | os.PathLike)
        readings = [self.read(one, start, end) for one in (video if several else [video])]
        explanations = self.explain_readings(readings)
        return explanations if several else explanations[0]

    def explain_arrays(self, frames_thwc: np.ndarray, waveform: np.ndarray, rate: int = 16000) -> Explanation:
        """Explains arrays: frames uint8 [t h w 3], upright, one for each segment's centre, and mono sound float32 [n],
        full scale 1, at `rate` samples a second, as long as the clip. Raises ValueError for other shapes.
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
        """Explains all of a video by windows `hop` segments apart (half a window), see long.py; `progress(done, all)`.

        Raises media.MediaError, and ValueError for a hop or number of windows that cannot be.
        """
        return long.explain(self, video, hop, top_windows, start, end, progress)

    @property
    def spec(self) -> media.ClipSpec:
        """How the model wants a clip cut."""
        return trunks.media_of(self.trained.facts.spec)

    def read(self, video: str | os.PathLike, start: float | None = None, end: float | None = None) -> reading.Reading:
        """Decodes what `explain_readings` takes, as the model wants it; raises media.MediaError."""
        return reading.read(video, self.spec, start, end)

    def explain_readings(self, readings: Sequence[reading.Reading]) -> list[Explanation]:
        """Explains clips that are already decoded, in batches of one size; raises ValueError for logits that are
        not finite.
        """
        explanations = []
        for i in range(0, len(readings), self.batch):
            part = readings[i : i + self.batch]
            arrays, kept = self.record([one.clip for one in part], size=min(len(readings), self.batch))
            explanations += [self._explanation(one, arrays, kept, b) for b, one in enumerate(part)]
        return explanations

    def record(self, clips: Sequence[media.Clip], size: int) -> tuple[dict[str, np.ndarray], dict[str, jax.Array]]:
        """The arrays of contributions.record for at most `size` clips, and what questions.ask wants to know of them.

        Rows behind the clips repeat the last one, so that the network is compiled for one size.
        """
        config = self.trained.config
        rows = [pipeline.clip_arrays(clip, config.data.frame_size, config.data.fit) for clip in clips]
        rows += [rows[-1]] * (size - len(rows))
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        arrays, kept = self._forward(self.trained.state, batch)
        return jax.device_get(arrays), kept

    def geometry(self, clip: media.Clip, cells: int) -> dict[str, Any]:
        """Where the `cells` of a frame lie in the source frame of a clip."""
        side = int(np.sqrt(cells))
        affine = pipeline.frame_affine(clip.height, clip.width, self.trained.config.data.fit)
        grid = (self.spec.segments, side, side)
        return make_geometry(grid, self.spec.segment_seconds, affine, clip.height, clip.width)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What the record says of the model."""
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
        """Whether each class is a yes or no of its own."""
        return run.is_binary(self.trained.config, self.trained.facts)

    def _explanation(self, one: reading.Reading, arrays, kept, b: int) -> Explanation:
        mine = {name: array if name in _SHARED else array[b] for name, array in arrays.items()}
        best = np.argsort(-mine['logits'], kind='stable')[:BEST]
        order, by = questions.moved(one.clip.valid)
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
            trust=questions.trust(answers, classes, self.binary, one.clip.valid, by),
            source=one.source,
        )

    @functools.cached_property
    def _forward(self):
        """(state, batch) -> record and what is kept for questions; compiled once for each number of clips."""
        graphdef, frame_size = self.trained.graphdef, self.trained.config.model.frame_size

        def forward(state, batch):
            logits, out = step.forward(graphdef, state, batch, frame_size=frame_size)
            kept = {name: out[name] for name in ('keys', 'values', 'audio')} | {'valid': batch['valid']}
            return contributions.record(logits, out, state['score_mean'], self.binary), kept

        return jax.jit(forward, compiler_options=perf.compile_options())

    @functools.cached_property
    def _ask(self):
        def ask(state, *asked):
            return questions.ask(nnx.merge(self.trained.graphdef, state['params'], state['rest']), *asked)

        return jax.jit(ask)


def load(workdir: str | os.PathLike) -> Model:
    """The model trained in a workdir: its best checkpoint, the latest where none was selected; raises run.RunError."""
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
    # A run on features that its own trunks had made reads videos too.
    return Model(run.reading(trained, trunks.media_of(trained.facts.spec)))

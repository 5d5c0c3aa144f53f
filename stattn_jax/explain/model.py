"""Computes `Explanation`s of videos with a trained model.

Two functions are compiled: the network's forward pass with the contributions, and the counterfactuals, which only run
the attention again. The finer map needs a third one, the visual part of the forward pass. result.py defines
`Explanation`; long.py handles videos longer than the model's clip.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx

from stattn_jax import run, trunk_setup
from stattn_jax.data import features, media, pipeline
from stattn_jax.explain import counterfactuals, half_cells, long, reading
from stattn_jax.explain.explanation import BEST, make_geometry
from stattn_jax.explain.result import Explanation
from stattn_jax.metrics import training_distance
from stattn_jax.models import contributions
from stattn_jax.pretrained import lookup, shared_folder
from stattn_jax.runtime import perf
from stattn_jax.training import step

_SHARED = ('bias', 'mean_scores')
# Provenance fields of a trunk that the record keeps; local paths are left out.
_ORIGIN = ('modality', 'trunk', 'weights', 'sha256', 'licence')


@dataclasses.dataclass(frozen=True, repr=False)
class Model:
    """A trained network that explains videos; `stattn_jax.load` and `stattn_jax.from_pretrained` make one.

    source: the run, or the folder of a shared model, that it was loaded from.
    """

    trained: run.Trained
    source: pathlib.Path | None = None
    # The result of training_distance.load for the run.
    distance: dict[str, Any] = dataclasses.field(default_factory=dict)
    # See ExplanationData.
    usual_weights: dict[str, Any] = dataclasses.field(default_factory=dict)
    # Number of clips per forward pass. More clips would need more memory and would not be faster on a CPU.
    batch: ClassVar[int] = 4

    def __repr__(self) -> str:
        config, classes = self.trained.config.model, self.trained.facts.classes
        names = ', '.join(classes[:5]) + (', ...' if len(classes) > 5 else '')
        clip = f'{self.spec.segments} segments of {self.spec.segment_seconds:g} s'
        trunks = f'trunks {config.visual} and {config.audio}'
        return f'<Model of {len(classes)} classes ({names}), {clip}, {trunks}, step {self.trained.step}>'

    def explain(
        self,
        video: str | os.PathLike | Sequence[str | os.PathLike],
        start: float | None = None,
        end: float | None = None,
        *,
        finer: bool = False,
    ) -> Explanation | list[Explanation]:
        """Explains seconds start..end of a video file, or of each of several files, with one Explanation each.

        `finer` adds the visual contributions on half cells, by eight more passes of the visual trunk. If that part is
        longer than the model's clip, only its beginning is explained (note 'long'); `explain_long` explains all of it.
        Raises media.MediaError with the file and a named reason.
        """
        if isinstance(video, str | os.PathLike):
            return self.explain_readings([self.read(video, start, end)], finer=finer)[0]
        return self.explain_readings([self.read(path, start, end) for path in video], finer=finer)

    def explain_arrays(
        self, frames_thwc: np.ndarray, waveform: np.ndarray, rate: int = 16000, *, finer: bool = False
    ) -> Explanation:
        """Explains a clip given as arrays of frames and audio.

        `frames_thwc` is uint8 [t h w 3], upright, one frame for each segment's centre. `waveform` is mono float32 [n],
        full scale 1, at `rate` samples a second, and as long as the clip. `finer` is as in `explain`. Raises ValueError
        for other shapes.
        """
        return self.explain_readings([reading.of_arrays(frames_thwc, waveform, rate, self.spec)], finer=finer)[0]

    def explain_long(
        self,
        video: str | os.PathLike,
        hop: int | None = None,
        top_windows: int = 5,
        start: float | None = None,
        end: float | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        finer: bool = False,
    ) -> 'long.Timeline':
        """Explains all of a video with windows `hop` segments apart (default: half a window); see long.py.

        Calls `progress(done, all)` after each window. `finer` is as in `explain`, for the explained windows. Raises
        media.MediaError, and ValueError for an invalid hop or number of windows.
        """
        return long.explain(self, video, hop, top_windows, start, end, progress, finer)

    def save_pretrained(
        self,
        directory: str | os.PathLike,
        *,
        licence: str | None = None,
        data_licence: str | None = None,
        limits: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Writes config.json, model.safetensors and README.md (the model card) for `stattn_jax.from_pretrained`.

        licence: the licence under which the weights may be used, preferably an SPDX identifier.
        data_licence: the licences of the recordings and who made them, for the model card.
        limits: sentences for the model card on the limits of the network.
        dtype: 'float16' stores the weights in half the size, rounded; loading gives float32. Default: as in the folder
          from which the model was loaded, 'float32' for a run.

        Raises run.RunError where the folder holds something else, for an unknown dtype and for numbers beyond its
        range, and OSError where the folder cannot be written.
        """
        if self.source is None:
            raise run.RunError('this model was not loaded from a run; expected one that stattn_jax.load returned')
        origin = shared_folder.origin_of(self.source, self.trained)
        data = origin.data | {'licence': data_licence} if data_licence else None
        options: dict[str, Any] = {'licence': licence, 'limits': limits, 'dtype': dtype, 'data': data}
        given = {name: value for name, value in options.items() if value is not None}
        stored = shared_folder.save(directory, self.trained, dataclasses.replace(origin, **given))
        if self.distance:
            source, copy = (pathlib.Path(folder) / run.TRAINING_DISTANCE for folder in (self.source, directory))
            training_distance.copy(source, copy, stored.hashes['parameter_hash'])

    @property
    def spec(self) -> media.ClipSpec:
        """The clip format that the model expects."""
        spec = trunk_setup.media_of(self.trained.facts.spec)
        assert isinstance(spec, media.ClipSpec)  # `load` refuses runs on features of other networks.
        return spec

    def read(self, video: str | os.PathLike, start: float | None = None, end: float | None = None) -> reading.Reading:
        """Decodes a video for `explain_readings` in the model's clip format; raises media.MediaError."""
        return reading.read(video, self.spec, start, end)

    def explain_readings(self, readings: Sequence[reading.Reading], *, finer: bool = False) -> list[Explanation]:
        """Explains clips that are already decoded, in batches of one size; `finer` is as in `explain`.

        Raises ValueError for logits that are not finite.
        """
        explanations = []
        for i in range(0, len(readings), self.batch):
            batch = readings[i : i + self.batch]
            clips, size = [decoded.clip for decoded in batch], min(len(readings), self.batch)
            arrays, inputs = self.record(clips, size, finer=finer)
            explanations += [self._explanation(decoded, arrays, inputs, b) for b, decoded in enumerate(batch)]
        return explanations

    def record(
        self, clips: Sequence[media.Clip], size: int, *, finer: bool = False
    ) -> tuple[dict[str, np.ndarray], dict[str, jax.Array]]:
        """Returns the arrays of contributions.record for at most `size` clips, and counterfactuals.compute's inputs.

        `finer` adds visual_finer [b c t 2h 2w] to the arrays. Rows after the last clip repeat it, so that the network
        is compiled for one batch size only.
        """
        config = self.trained.config
        rows = [pipeline.clip_arrays(clip, config.data.frame_size, config.data.fit) for clip in clips]
        rows += [rows[-1]] * (size - len(rows))
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        arrays, inputs = self._forward(self.trained.state, batch)
        arrays = jax.device_get(arrays)
        if finer:
            arrays['visual_finer'] = self._finer(batch, inputs['audio'], arrays['visual'])
        return arrays, inputs

    def _finer(self, batch, audio_btd: jax.Array, visual_bcts: np.ndarray) -> np.ndarray:
        """Returns the visual contributions on half cells, which add up to those on cells: [b c t 2h 2w]."""
        side = math.isqrt(visual_bcts.shape[-1])
        visual = visual_bcts.reshape(*visual_bcts.shape[:-1], side, side)
        maps = {(0, 0): visual}
        for shift in half_cells.SHIFTS:
            shifted = self._shifted(self.trained.state, batch, audio_btd, np.array(shift))
            maps[shift] = np.asarray(shifted).reshape(visual.shape)
        return half_cells.adding_up(half_cells.average(maps), visual)

    def geometry(self, clip: media.Clip, cells: int) -> dict[str, Any]:
        """Returns where the `cells` of a frame lie in the source frame of a clip."""
        side = math.isqrt(cells)
        affine = pipeline.frame_affine(clip.height, clip.width, self.trained.config.data.fit)
        grid = (self.spec.segments, side, side)
        return make_geometry(grid, self.spec.segment_seconds, affine, clip.height, clip.width)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """The fields that identify the model in the record."""
        trained = self.trained
        return {
            **trained.hashes,
            'versions': run.versions(),
            'dtype': trained.config.model.dtype,
            'step': trained.step,
            'trunks': [{name: trunk[name] for name in _ORIGIN} for trunk in trained.trunks],
        }

    @functools.cached_property
    def binary(self) -> bool:
        """True if the model uses an independent sigmoid per class."""
        return run.is_binary(self.trained.config, self.trained.facts)

    def _explanation(self, decoded: reading.Reading, arrays, inputs, b: int) -> Explanation:
        arrays = {name: array if name in _SHARED else array[b] for name, array in arrays.items()}
        best = np.argsort(-arrays['logits'], kind='stable')[:BEST]
        order, by = counterfactuals.moved(decoded.clip.valid)
        silence = np.full(self.spec.mel_shape[1:], self.spec.silence, np.float32)
        inputs = {name: array[b] for name, array in inputs.items()}
        distance = self._training_distance(inputs, decoded.clip.notes)
        outputs = jax.device_get(self._counterfactuals(self.trained.state, inputs, best, order, silence))
        trust = {}
        if media.modalities(decoded.clip.notes).all():
            classes = self.trained.facts.classes
            trust = counterfactuals.trust(outputs, classes, self.binary, decoded.clip.valid, by)
        geometry = self.geometry(decoded.clip, arrays['alpha'].shape[-1])
        classes = self.trained.facts.classes
        return Explanation.from_arrays(
            arrays,
            geometry=geometry,
            classes=classes,
            multi_label=self.binary,
            media=decoded.media,
            model=self.identity,
            valid=np.asarray(decoded.clip.valid),
            log_mel=np.asarray(decoded.clip.log_mel),
            frames=tuple(decoded.clip.frames),
            removed_cells=outputs['removed'].reshape(len(best), *geometry['grid']),
            removed_classes=tuple(classes[c] for c in best),
            trust=trust | distance,
            usual_weights=self.usual_weights,
            source=decoded.source,
        )

    def _training_distance(self, inputs, notes: Sequence[str]) -> dict[str, Any]:
        """Returns {'training_distance': ...} of ExplanationData.trust; {} for a run without these numbers.

        A modality that the clip lacks has no distance.
        """
        if not self.distance:
            return {}
        features = {'visual': np.asarray(inputs['values']).mean(axis=1), 'audio': np.asarray(inputs['audio'])}
        valid = np.asarray(inputs['valid'])[None]
        found = {'false_alarm_rate': self.distance['rate'], 'held_out_clips': self.distance['held_out']}
        for name, note in zip(training_distance.MODALITIES, media.LACKING, strict=True):
            measure = self.distance[name]
            if note not in notes:
                distance = float(measure(features[name][None], valid)[0])
                found[name] = {'distance': distance, 'threshold': float(measure.threshold)}
        return {'training_distance': found}

    @functools.cached_property
    def _forward(self):
        """The forward pass: (state, batch) -> record and inputs of `compute`; compiled once per number of clips."""
        graphdef, frame_size = self.trained.graphdef, self.trained.config.model.frame_size

        def forward(state, batch):
            logits, out = step.forward(graphdef, state, batch, frame_size=frame_size)
            inputs = {name: out[name] for name in ('keys', 'values', 'audio')}
            inputs |= {'valid': batch['valid'], 'modalities': step.modalities_of(batch)}
            return contributions.record(logits, out, state['score_mean'], self.binary), inputs

        return jax.jit(forward, compiler_options=perf.compile_options())

    @functools.cached_property
    def _shifted(self):
        """The visual contributions [b c t s] of moved frames: (state, batch, audio [b t d], shift [2]) -> array."""
        graphdef, frame_size = self.trained.graphdef, self.trained.config.model.frame_size

        def shifted(state, batch, audio, shift):
            model = nnx.merge(graphdef, state['params'], state['rest'])
            frames = step.resize_frames(step.read_inputs(batch)['frames'], frame_size)
            cells = model.cells(half_cells.moved(frames, shift, model.stride // 2), train=False)
            _, out = model.forward_heads(cells, audio, batch['valid'], modalities=step.modalities_of(batch))
            return contributions.centred(out, state['score_mean'])[1]

        return jax.jit(shifted, compiler_options=perf.compile_options())

    @functools.cached_property
    def _counterfactuals(self):
        def compute(state, *arguments):
            model = nnx.merge(self.trained.graphdef, state['params'], state['rest'])
            return counterfactuals.compute(model, *arguments)

        return jax.jit(compute)


def load(workdir: str | os.PathLike) -> Model:
    """Loads the best checkpoint of a run directory (workdir), or the latest where none was selected as best.

    `workdir` may also be the folder of a shared model (pretrained/shared_folder.py), or the name of a shipped one.
    Raises run.RunError.
    """
    workdir = pathlib.Path(lookup.find_local(workdir))
    shared = shared_folder.is_folder(workdir)
    trained = shared_folder.load(workdir) if shared else _load_run(workdir)
    try:
        path, parameters = workdir / run.TRAINING_DISTANCE, trained.hashes['parameter_hash']
        distance = training_distance.load(path, trained.step, parameters)
    except ValueError as error:
        raise run.RunError(str(error), code=1) from None
    evaluations = shared_folder.read_record(workdir)['evaluation'] if shared else _evaluations(workdir, trained.step)
    return Model(trained, workdir, distance, _usual_weights(evaluations))


def _load_run(workdir: pathlib.Path) -> run.Trained:
    """Returns the network of a run as one that reads videos; raises RunError."""
    trained = run.load(str(workdir), parallel_kind='jit', devices=jax.local_devices()[:1])
    if trained.config.model.kind != 'stan':
        raise run.RunError(
            f'{workdir} was trained with config.model.kind {trained.config.model.kind!r}, whose logits are not a '
            "sum of contributions; expected 'stan'"
        )
    if isinstance(trained.facts.spec, features.FeatureSpec):
        raise run.RunError(
            f'{workdir} was trained on features ({trained.facts.spec.source}), which cannot be '
            'computed from a video here; expected the workdir of a run on videos'
        )
    # A run trained on features that its own trunks extracted can also read videos.
    return run.with_spec(trained, trunk_setup.media_of(trained.facts.spec))


def _evaluations(workdir: pathlib.Path, step: int) -> dict[str, dict[str, Any]]:
    """Returns the numbers of the evaluations of checkpoint `step` in a run, by split."""
    found = {path.stem.removeprefix('eval_'): json.loads(path.read_text()) for path in workdir.glob('eval_*.json')}
    return {split: numbers for split, numbers in sorted(found.items()) if numbers.get('checkpoint/step') == step}


def _usual_weights(evaluations: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the first split and each modality's weight in it (ExplanationData.usual_weights), or {}."""
    for split, numbers in evaluations.items():
        weight = numbers.get('attention/sound_weight')
        if weight is not None:
            return {'split': split, 'picture': 1 - weight, 'sound': weight}
    return {}


def from_pretrained(name: str | os.PathLike, revision: str | None = None) -> Model:
    """Loads a shared model by its folder, the name of a shipped one, or OWNER/NAME on the hub; raises run.RunError."""
    return load(lookup.find(name, revision))

"""The test clips of a variant as the study needs them: inputs, labels, ground truth, and replacements of the sound."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax import run, score
from stattn_jax.attribution import ClipArrays, removal
from stattn_jax.data import mel, pipeline, source
from stattn_jax.data.spec import ClipSpec
from stattn_jax.study import plan
from stattn_jax.study.pointing import Targets
from stattn_jax.training import augment

SOUNDS = 'sounds-test.npy'
# Number of training clips that the mean picture and the mean patch are computed from.
AVERAGED = 256


@dataclasses.dataclass(frozen=True)
class TestClips:
    """Labelled test clips in order, and means over training clips.

    inputs [n ...], labels int [n], targets, numbers: those of the clips in their split.
    sounds: waveforms int16 [n samples], or None where the data set holds none.
    left_out: how many clips of the split are not among these because they lack pictures or sound.
    """

    inputs: ClipArrays
    labels: np.ndarray
    targets: Targets
    sounds: np.ndarray | None
    mean_picture: np.ndarray
    mean_patch: np.ndarray
    facts: run.DataFacts
    numbers: np.ndarray
    left_out: int

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, chosen: np.ndarray) -> 'TestClips':
        """Returns the clips with the given numbers."""
        inputs = jax.tree.map(lambda x: x[chosen], self.inputs)
        return dataclasses.replace(
            self,
            inputs=inputs,
            labels=self.labels[chosen],
            targets=self.targets.subset(chosen),
            sounds=None if self.sounds is None else self.sounds[chosen],
            numbers=self.numbers[chosen],
        )

    @property
    def spec(self) -> ClipSpec:
        """The format of the clips, which hold pictures and sound."""
        assert isinstance(self.facts.spec, ClipSpec)
        return self.facts.spec

    @property
    def silence(self) -> float:
        """The log-mel value of silence."""
        return self.spec.silence

    @functools.cached_property
    def absent_sounds(self) -> list[dict[str, np.ndarray]]:
        """The replacement of each clip's log-mel, by operator: float32 [t f k]."""
        spec = self.spec
        if self.sounds is None:
            pairs = zip(self.inputs.log_mel, self.inputs.valid)
            return [removal.log_mel_absent(x, valid, self.silence, self.mean_patch) for x, valid in pairs]
        options = (mel.MEL_PRESETS[spec.mel], spec.segments, spec.segment_seconds, self.mean_patch)
        return [
            removal.sound_absent(waveform.astype(np.float32) / 32767, *options, seed=int(number))
            for waveform, number in zip(self.sounds, self.numbers)
        ]


def load(entry: plan.Entry) -> TestClips:
    """Reads the clips of the test split that have both modalities, and the waveforms stored beside it, if any.

    Of more than entry.measure.test_clips, some are read that are evenly spread. Raises RunError if a clip does not have
    exactly one label.
    """
    config, folder = entry.config, entry.clips
    data = source.RecordSource(folder, plan.TEST)
    spread = np.unique(np.linspace(0, len(data) - 1, entry.measure.test_clips).round().astype(int))
    truth = {int(i): score.truth_of(data[int(i)]) for i in spread}
    if any(len(r.labels) != 1 for r in truth.values()):
        raise run.RunError(f'{folder} has test clips without just one label; the study compares clips of one label')
    kept = [i for i, r in truth.items() if r.paired]
    path = folder / SOUNDS
    train = source.RecordSource(folder, config.data.split)
    sample = _inputs(train, np.unique(np.linspace(0, len(train) - 1, AVERAGED).astype(int)), config)
    facts = run.DataFacts.of(data.info)
    return TestClips(
        inputs=_inputs(data, kept, config),
        labels=np.array([truth[i].labels[0] for i in kept]),
        targets=Targets.of([truth[i] for i in kept], config.data.fit, facts.spec.segment_seconds),
        sounds=np.load(path, mmap_mode='r')[kept] if path.exists() else None,
        mean_picture=np.asarray(sample.frames).mean((0, 1)),
        mean_patch=np.asarray(sample.log_mel).mean((0, 1)),
        facts=facts,
        numbers=np.array(kept),
        left_out=len(truth) - len(kept),
    )


def _inputs(data, numbers, config) -> ClipArrays:
    clips = [pipeline.clip_arrays(data[int(i)], config.data.frame_size, config.data.fit) for i in numbers]
    frames, log_mel, valid = (np.stack([clip[name] for clip in clips]) for name in ('frames', 'log_mel', 'valid'))
    size = config.model.frame_size
    resized = [
        np.asarray(augment.resize_frames(jnp.asarray(part / np.float32(255)), size))
        for part in np.split(frames, len(frames))
    ]
    return ClipArrays(np.concatenate(resized), log_mel.astype(np.float32), valid)

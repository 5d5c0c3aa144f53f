"""The test clips of a variant as the study needs them: inputs, labels, ground truth, and replacements of the sound."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from stattn_jax import run, score
from stattn_jax.attribution import ClipArrays, removal
from stattn_jax.data import mel, pipeline, source
from stattn_jax.data.spec import ClipSpec
from stattn_jax.study.pointing import Targets
from stattn_jax.training import augment

SPLIT = 'test'
SOUNDS = 'sounds-test.npy'
# Number of training clips that the mean picture and the mean patch are computed from.
AVERAGED = 256


@dataclasses.dataclass(frozen=True)
class TestClips:
    """Labelled test clips in order, and means over training clips.

    inputs [n ...], labels int [n], targets, sounds: waveforms int16 [n samples].
    """

    inputs: ClipArrays
    labels: np.ndarray
    targets: Targets
    sounds: np.ndarray
    mean_picture: np.ndarray
    mean_patch: np.ndarray
    facts: run.DataFacts
    numbers: np.ndarray

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
            sounds=self.sounds[chosen],
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
        options = (mel.MEL_PRESETS[spec.mel], spec.segments, spec.segment_seconds, self.mean_patch)
        return [
            removal.sound_absent(waveform.astype(np.float32) / 32767, *options, seed=int(number))
            for waveform, number in zip(self.sounds, self.numbers)
        ]


def load(config: ml_collections.ConfigDict, facts: run.DataFacts) -> TestClips:
    """Reads the test split and the waveforms stored beside it.

    Raises RunError if the waveforms are missing, or if a clip does not have exactly one label.
    """
    data = source.RecordSource(config.data.dir, SPLIT)
    truth = score.read_truth(data)
    if any(len(r.labels) != 1 for r in truth):
        raise run.RunError(
            f'{config.data.dir} has test clips without just one label; the study compares clips of one label'
        )
    path = pathlib.Path(config.data.dir) / SOUNDS
    if not path.exists():
        raise run.RunError(
            f'{path} is not there; expected the test waveforms, int16 [n samples] in the order of the records; '
            'data_prep.synthetic --sounds writes them'
        )
    train = source.RecordSource(config.data.dir, config.data.split)
    sample = _inputs(train, np.unique(np.linspace(0, len(train) - 1, AVERAGED).astype(int)), config)
    return TestClips(
        inputs=_inputs(data, np.arange(len(data)), config),
        labels=np.array([r.labels[0] for r in truth]),
        targets=Targets.of(truth, config.data.fit, facts.spec.segment_seconds),
        sounds=np.load(path, mmap_mode='r'),
        mean_picture=np.asarray(sample.frames).mean((0, 1)),
        mean_patch=np.asarray(sample.log_mel).mean((0, 1)),
        facts=facts,
        numbers=np.arange(len(data)),
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

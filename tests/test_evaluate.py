"""Tests that evaluation does not depend on how it is run and counts every clip once.

The shortcut checks are tested on networks whose answer is known.
"""

import json

import fakes
import jax
import ml_collections
import numpy as np
import pytest
import runs
import simplejpeg

from data_prep import prepare
from stattn_jax import evaluate, run, score
from stattn_jax.data import media, pipeline, records, source
from stattn_jax.models import contributions
from stattn_jax.training import step

pytestmark = pytest.mark.usefixtures('quick_compile')


# ---------------------------------------------------------------------------------------------------------------------
# A trained network
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind, devices, batch', [('jit', 1, 4), ('jit', 8, 16), ('pmap', 2, 2), ('pmap', 4, 8)])
def test_numbers_do_not_depend_on_batch_devices_or_strategy(trained, kind, devices, batch):
    loaded = run.load(str(trained), parallel_kind=kind, devices=jax.devices()[:devices])
    loaded.config.eval.batch = batch
    numbers = evaluate.Evaluator(loaded.graphdef, loaded.strategy, loaded.config).split(
        loaded.state, 'test', shortcuts=True
    )
    expected = json.loads((trained / 'eval_test.json').read_text())
    del expected['checkpoint/step']
    assert numbers == pytest.approx(expected, abs=1e-6)
    assert numbers['classification/n'] == 6 and numbers['shortcut/n'] == 4


def test_rows_are_those_of_each_clip_on_its_own(trained, tiny_data):
    loaded = run.load(str(trained), parallel_kind='jit', devices=jax.devices()[:1])
    data = source.RecordSource(tiny_data, 'test')
    rows = evaluate.Evaluator(loaded.graphdef, loaded.strategy, loaded.config)._rows(loaded.state, data, 1)
    assert rows['index'].tolist() == list(range(6))
    forward = jax.jit(lambda batch: step.forward(loaded.graphdef, loaded.state, batch, frame_size=runs.SIDE))
    for i in range(len(data)):
        arrays = pipeline.clip_arrays(data[i], runs.SIDE, loaded.config.data.fit)
        logits, out = forward({name: array[None] for name, array in arrays.items()})
        np.testing.assert_allclose(rows['logits'][i], logits[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(rows['alpha'][i], out['alpha'][0].mean(1), rtol=1e-4, atol=1e-6)
        (label,) = data[i].labels
        assert rows['classes'][i].tolist() == [label]
        # All terms of a class, centred by the mean scores, and the reference add up to its logit.
        reference = contributions.centred(out, loaded.state['score_mean'])[0][0, label]
        total = rows['visual'][i].sum() + rows['audio'][i].sum() + reference
        np.testing.assert_allclose(total, logits[0, label], rtol=1e-5, atol=1e-5)
        picture = np.sum(out['beta'][0, 0] * out['segment_scores'][0, 0], axis=0)
        np.testing.assert_allclose(rows['picture'][i], picture, rtol=1e-5, atol=1e-5)
    correct = rows['logits'].argmax(1) == [data[i].labels[0] for i in range(6)]
    expected = json.loads((trained / 'eval_test.json').read_text())
    assert expected['classification/top1'] == pytest.approx(correct.mean())
    assert expected['attention/null'] == pytest.approx(rows['null'].mean(), abs=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Leak checks
# ---------------------------------------------------------------------------------------------------------------------


def info(multi_label):
    spec = media.ClipSpec(segments=2)
    return source.DatasetInfo('fake', ('a', 'b', 'c'), multi_label, spec, {'test': 2}, {'test': 3}, {'test': 1}, 'abc')


def truth(labels):
    return score.Truth(labels, (), (), (), np.ones(2, bool), 40, 80)


class LabelledSource:
    """Clips in which the brightness of the frames and the level of the audio both encode the label."""

    split = 'test'

    def __init__(self, labels, info):
        self.labels, self.info = labels, info

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        label = self.labels[i][0]
        frames = [simplejpeg.encode_jpeg(np.full((16, 16, 3), 60 + 60 * label, np.uint8))] * 2
        clip = media.Clip(frames, np.full((2, 4, 3), label, np.float16), np.ones(2, bool), 16, 16, 2.0)
        return records.ClipRecord(f'{i}', clip, self.labels[i])


class Knowing(evaluate.Evaluator):
    """An evaluator of a network that reads the label from the frames or from the audio; black frames carry no label."""

    def __init__(self, config, by, certain=9.0):
        super().__init__(None, None, config)
        self.by, self.certain = by, certain

    def _rows(self, state, data, labels_per_clip, by_segment=False):
        predicted = []
        for i in range(len(data)):
            clip = data[i].clip
            seen = (simplejpeg.decode_jpeg(clip.frames[0]).mean() - 60) / 60
            predicted.append(round(float(clip.log_mel.mean() if self.by == 'sound' else seen)))
        scores = self.certain * np.array([np.eye(3)[label] if label >= 0 else np.ones(3) for label in predicted])
        return {'picture': scores, 'logits': scores}


@pytest.fixture
def config(trained):
    return ml_collections.ConfigDict(json.loads((trained / 'config.json').read_text()))


def shortcuts(config, by, labels, clips=100, **options):
    config.eval.shortcut_clips = clips
    data = LabelledSource(labels, info(multi_label=True))
    return Knowing(config, by, **options)._shortcuts(None, data, score.read_truth(data))


LABELS = [(0,), (0,), (1,), (2,), (1,), (0,)]


def test_picture_that_follows_the_picture_has_no_shortcut(config):
    numbers = shortcuts(config, 'picture', LABELS)
    assert (
        numbers['shortcut/mismatched_audio'] == 1
        and numbers['shortcut/mismatched_audio_follows'] == 0
        and numbers['shortcut/n'] == 6
    )
    assert numbers['shortcut/mismatched_audio_undecided'] == 0 and numbers[
        'shortcut/mismatched_audio_chance'
    ] == pytest.approx(1 / 3)
    # All black frames look alike to this network, and it predicts class 0.
    assert numbers['shortcut/audio_only'] == pytest.approx(3 / 6)


def test_picture_that_follows_the_sound_is_caught(config):
    numbers = shortcuts(config, 'sound', LABELS)
    assert numbers['shortcut/mismatched_audio'] == 0 and numbers['shortcut/mismatched_audio_follows'] == 1
    assert numbers['shortcut/mismatched_audio_decided_follows'] == 1 and numbers['shortcut/audio_only'] == 1


def test_picture_that_hardly_prefers_a_class_is_undecided(config):
    numbers = shortcuts(config, 'sound', LABELS, certain=0.1)
    assert numbers['shortcut/mismatched_audio_follows'] == 1 and numbers['shortcut/mismatched_audio_undecided'] == 1
    assert numbers['shortcut/mismatched_audio_decided_follows'] == 0


def test_shortcut_clips_limits_the_clips_spread_over_the_split(config):
    assert shortcuts(config, 'picture', LABELS, clips=3)['shortcut/n'] == 3
    assert shortcuts(config, 'picture', [(1,)] * 4) == {'shortcut/n': 0}
    assert shortcuts(config, 'picture', [(1,)]) == {'shortcut/n': 0}


def test_sound_of_the_partner_shares_no_label():
    known = [truth(labels) for labels in ((0, 1), (1,), (0,), (2, 1), (2,))]
    assert [evaluate._clip_with_other_label(known, i) for i in range(5)] == [4, 2, 3, 2, 0]
    assert evaluate._clip_with_other_label([truth((0,)), truth((0, 1))], 0) is None


# ---------------------------------------------------------------------------------------------------------------------
# Data with several labels and without annotations
# ---------------------------------------------------------------------------------------------------------------------


def test_several_labels_and_a_split_of_one_clip_go_all_the_way(tmp_path):
    jobs = [prepare.Job(f'train{i}', 'train', (i % 3, (i + 1) % 3)) for i in range(8)]
    jobs += [prepare.Job('test0', 'test', (2,)), prepare.Job('val0', 'val', (0, 1)), prepare.Job('val1', 'val', (2,))]
    data = tmp_path / 'data'
    prepare.prepare(
        data, 'fake', jobs, fakes.make_record, classes=fakes.CLASSES, spec=fakes.SPEC, multi_label=True, workers=1
    )
    workdir = tmp_path / 'run'
    fields = {
        'train__steps': 2,
        'train__eval_every_steps': 2,
        'loss__negatives': 0,
        'loss__correspondence': 0.0,
        'loss__mismatched_uniform': 0.0,
    }
    fields |= {'model__visual': 'tiny', 'model__audio': 'tiny', 'model__dtype': 'float32'}
    assert runs.run_main(*runs.make_flags(workdir, data, config='configs/own.py', **fields)) == 0
    one, two = (json.loads((workdir / f'eval_{split}.json').read_text()) for split in ('test', 'val'))
    assert one['classification/n'] == 1 and one['shortcut/n'] == 0 and one['classification/map_skipped'] == 2
    assert (
        two['classification/n'] == 2
        and two['shortcut/n'] == 2
        and two['shortcut/mismatched_audio_chance'] == pytest.approx(1.5 / 3)
    )
    for numbers in (one, two):
        assert numbers['pointing/space_n'] == numbers['pointing/time_n'] == 0 and 'pointing/space' not in numbers
    assert np.isfinite(list(runs.metrics(workdir).values())).all()


# ---------------------------------------------------------------------------------------------------------------------
# Choosing a checkpoint
# ---------------------------------------------------------------------------------------------------------------------


def splits_info(*splits):
    counts = dict.fromkeys(splits, 2)
    return source.DatasetInfo('fake', ('a',), False, media.ClipSpec(segments=2), counts, counts, counts, 'abc')


@pytest.mark.parametrize('split, expected', [('val', True), ('', False), ('dev', True)])
def test_the_checkpoint_is_chosen_on_a_split_that_is_there(config, split, expected):
    config.eval.select_split = split
    assert evaluate.selects(config, splits_info('train', 'val', 'dev', 'test')) is expected


def test_data_without_val_keep_the_last_checkpoint(config):
    config.eval.select_split = 'val'
    assert evaluate.selects(config, splits_info('train', 'test')) is False


@pytest.mark.parametrize('split', ['test', 'vla'])
def test_nothing_is_chosen_on_test_or_on_a_split_that_is_not_there(config, split):
    config.eval.select_split = split
    with pytest.raises(run.RunError, match=f"select_split is '{split}'.*never 'test'"):
        evaluate.selects(config, splits_info('train', 'val', 'test'))


def test_a_metric_that_is_none_is_named_with_the_nearest(config):
    config.train.best_metric = 'classification/top_1'
    with pytest.raises(run.RunError, match="best_metric is 'classification/top_1'.*did you mean classification/top1"):
        evaluate.check_metric(config, {'classification/top1': 0.5, 'pointing/space': 0.5})
    config.train.best_metric = 'pointing/space'
    evaluate.check_metric(config, {'classification/top1': 0.5, 'pointing/space': 0.5})

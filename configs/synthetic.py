"""The synthetic set, whose ground truth is known: used by the demo and to test every claim.

  python -m data_prep.synthetic --out=DATA                      # 1 minute
  python -m stattn_jax.main --config=configs/synthetic.py --workdir=RUN --config.data.dir=DATA

Variants: `configs/synthetic.py:lopsided` is for the hard set (`python -m data_prep.synthetic --variant=lopsided
--train=3000 --out=DATA`). `configs/synthetic.py:binding` is for clips whose class depends only on which object sounds
and when (`--variant=binding --train=3000`; data_prep/scenes_binding.py). `events` is the default variant. Hardware: 2
CPU cores. docs/results.md lists minutes and numbers. `:events,gpu`, `:lopsided,gpu`, `:binding,gpu` train a wider
network on more clips (`--train=20000`) on one accelerator: not yet run.
"""

from configs import common

VARIANTS = ('events', 'lopsided', 'binding')


def get_config(arg: str = ''):
    config = common.tiny(common.get_config())
    common.check_variant('configs/synthetic.py', arg, *VARIANTS, *(f'{name},gpu' for name in VARIANTS))
    config.augment.update({'mel_bands': 0, 'mel_frames': 0})
    config.train.steps = 450
    variant, _, device = arg.partition(',')
    if variant == 'lopsided':
        config.model.visual = 'small'
        config.augment.colour = 0.1  # these classes differ in colour as much as in shape
        config.loss.mismatched_uniform = 0.5
        config.train.steps = 900
    if variant == 'binding':
        # The audio alone carries no information about the class: there is nothing to learn from it alone (audio,
        # correspondence), and nothing that the visual path could copy from it (mismatched_uniform,
        # stop_gradient_evidence). Frames are not cropped, because the class cannot be inferred when an object is cut
        # off.
        config.model.stop_gradient_evidence = False
        config.loss.update({'audio': 0.0, 'visual': 0.0, 'correspondence': 0.0, 'mismatched_uniform': 0.0})
        config.augment.update({'crop': 1.0, 'colour': 0.0})
        config.train.steps = 1200
    return _gpu(config) if device else config


def _gpu(config):
    config.model.update({'visual': 'small', 'width': 256, 'hidden': 128, 'dtype': 'bfloat16'})
    config.data.threads = 8
    config.train.update(
        {'steps': 4 * config.train.steps, 'batch': 256, 'eval_every_steps': 1000, 'save_every_steps': 1000}
    )
    config.optim.warmup_steps = 200
    config.eval.batch = 256
    return config

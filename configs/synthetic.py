"""The synthetic set, whose truth is known: the demo, and the test of every claim.

  python -m data_prep.synthetic --out=DATA                      # 1 minute
  python -m stattn_jax.main --config=configs/synthetic.py --workdir=RUN --config.data.dir=DATA

Variants: `configs/synthetic.py:lopsided` for the hard set (`python -m data_prep.synthetic --variant=lopsided --train=3000 --out=DATA`),
`configs/synthetic.py:binding` where only which object sounds, and when, tells the class (`--variant=binding --train=3000`; data_prep/scenes_binding.py).
Hardware: 2 CPU cores. Minutes and numbers: docs/results.md.
"""

from configs import common


def get_config(arg: str = ''):
    config = common.tiny(common.get_config())
    common.check_variant('configs/synthetic.py', arg, 'lopsided', 'binding')
    config.augment.update({'mel_bands': 0, 'mel_frames': 0})
    config.train.steps = 450
    if arg == 'lopsided':
        config.model.visual = 'small'
        config.augment.colour = 0.1  # colour is half of what tells these classes apart
        config.loss.swap = 0.5
        config.train.steps = 900
    if arg == 'binding':
        # The sound alone tells nothing of the class: there is nothing to learn from it alone (audio, match) and nothing that the picture
        # could repeat (swap, detach_evidence). Its picture must stay whole: an object cut off takes the answer with it.
        config.model.detach_evidence = False
        config.loss.update({'audio': 0.0, 'picture': 0.0, 'match': 0.0, 'swap': 0.0})
        config.augment.update({'crop': 1.0, 'colour': 0.0})
        config.train.steps = 1200
    return config

"""Kinetics-Sounds: the 31, 32 or 34 audible classes of Kinetics-400 (Arandjelovic and Zisserman, arXiv 1705.08168).

  python -m data_prep.kinetics_sounds --annotations=kinetics400.csv --classes=adamml31 --videos=VIDEOS --out=DATA
  python -m stattn_jax.main --config=configs/kinetics_sounds.py --workdir=RUN --config.data.dir=DATA

There is no canonical class list or split: docs/datasets.md names the lists that papers used, and --classes has no
default. Hardware: one accelerator expected; hours and numbers: not yet run here. `:runlocal` runs twenty steps on a
laptop.

`:pretrained` begins with published weights, ResNet-50 for frames and CNN14 for audio: prepare the data with
--mel=panns_16k. docs/weights.md lists the sources of the two files. Not yet run here on the whole set.

Published top-1 of two ResNet-18 from scratch, 31 classes: audio 55.1, visual 45.3, concatenated 65.6, MMPareto 74.6
(BalanceBenchmark). Numbers on other class lists are not comparable.
"""

from configs import common


def get_config(arg: str = ''):
    config = common.get_config()
    common.check_variant('configs/kinetics_sounds.py', arg, 'pretrained', 'runlocal')
    config.data.fit = 'crop'
    config.train.update({'steps': 15_000, 'batch': 64, 'eval_every_steps': 750, 'save_every_steps': 750})
    if arg == 'pretrained':
        return common.pretrained(config)
    return common.runlocal(common.tiny(config)) if arg == 'runlocal' else config

"""AVE from its published features (VGG-19 pool5, VGGish), as most papers on AVE use it.

  python -m data_prep.ave --annotations=AVE --features=AVE --out=DATA
  python -m stattn_jax.main --config=configs/ave_features.py --workdir=RUN --config.data.dir=DATA

configs/ave.py describes the data set and lists published numbers to compare with. The 178 background clips that come
with the features are training examples without an event. Hardware: 2 CPU cores train 190 clips/s, so about 15 minutes
(measured on a synthetic set of the same shapes, which reaches 99.8 % segment accuracy in 200 steps: docs/results.md);
numbers on AVE itself: not yet run here. `:runlocal` runs twenty steps.
"""

from configs import common


def get_config(arg: str = ''):
    config = common.features(common.get_config())
    common.check_variant('configs/ave_features.py', arg, 'runlocal')
    config.optim.warmup_steps = 100
    config.train.update({'steps': 2500, 'eval_every_steps': 250, 'save_every_steps': 250})
    return common.runlocal(config) if arg == 'runlocal' else config

"""LLP from its published features (ResNet-152, R(2+1)D-18, VGGish), as all papers on LLP use it.

  python -m data_prep.llp --annotations=LLP --features=FEATURES --out=DATA
  python -m stattn_jax.main --config=configs/llp_features.py --workdir=RUN --config.data.dir=DATA

configs/llp.py describes the data set and lists published numbers to compare with. FEATURES holds vggish/, res152/ and
r2plus1d_18/ with one npy file per video. The features have no grid: the only cell is the whole frame. Hardware: 2 CPU
cores train 1,500 clips/s, so about 5 minutes (measured on a synthetic set of the same shapes: docs/results.md); numbers
on LLP itself: not yet run here. `:runlocal` runs twenty steps.
"""

from configs import common


def get_config(arg: str = ''):
    config = common.features(common.get_config())
    common.check_variant('configs/llp_features.py', arg, 'runlocal')
    config.optim.warmup_steps = 200
    config.train.update(
        {'steps': 6000, 'eval_every_steps': 300, 'save_every_steps': 300, 'best_metric': 'parsing/segment_type'}
    )
    return common.runlocal(config) if arg == 'runlocal' else config

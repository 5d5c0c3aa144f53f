"""AVSBench: masks of sounding objects each second, in clips of 5 or 10 s (Zhou et al., arXiv 2207.05042, 2301.13190).

  python -m data_prep.avsbench --data=Single-source --subset=s4 --out=DATA
  python -m stattn_jax.main --config=configs/avsbench.py --workdir=RUN --config.data.dir=DATA

The model is trained on the labels of the clips alone. Masks only score it, and those of val choose the threshold of the
heat (docs/datasets.md). MS3 names no classes, so that nothing can be trained on it: evaluate a run of S4 on it with
--mode=eval. Hardware: one accelerator expected; hours and numbers: not yet run here. `:runlocal` runs twenty steps on a
laptop.

`:pretrained` begins with published weights, ResNet-50 for frames and CNN14 for audio: prepare the data with
--mel=panns_16k. docs/weights.md lists the sources of the two files. Not yet run here on the whole set.

Published numbers (TPAVI, CAVP) are of models that were *supervised by masks*, which a model of clip labels is not:
compare it with weakly supervised models, and with the trivial answers that every evaluation prints.
"""

from configs import common


def get_config(arg: str = ''):
    config = common.get_config()
    common.check_variant('configs/avsbench.py', arg, 'pretrained', 'runlocal')
    config.train.update({'steps': 6000, 'batch': 64, 'eval_every_steps': 300, 'save_every_steps': 300})
    config.train.best_metric = 'classification/map'
    if arg == 'pretrained':
        return common.pretrained(config)
    return common.runlocal(common.tiny(config)) if arg == 'runlocal' else config

"""AVE from its videos: 28 audio-visual events, at most one per ten-second clip (Tian et al., arXiv 1803.08842).

  python -m data_prep.ave --annotations=AVE --videos=AVE/AVE --out=DATA
  python -m stattn_jax.main --config=configs/ave.py --workdir=RUN --config.data.dir=DATA

The model is trained on the video's label alone ("weakly supervised"). Each class has an independent sigmoid, because in
a sixth of the seconds no event happens. Hardware: one accelerator expected; hours and numbers: not yet run here.
`:runlocal` runs twenty steps on a laptop.

`:pretrained` begins with published weights, ResNet-50 for frames and CNN14 for audio: prepare the data with
--mel=panns_16k. docs/weights.md lists the sources of the two files. Not yet run here on the whole set.

Published segment accuracy, *supervised* by the labels of each second: AVEL 72.7, CMRAN 77.4, CMBS 79.3, DG-SCT 82.2
(DG-SCT's table and repository). Predicting the video's true label in every second gives 82.2, so read
`segments/accuracy_partial` and the F1 as well. Compare only with models that were selected on val; several published
ones were selected on test (docs/datasets.md).
"""

from configs import common


def get_config(arg: str = ''):
    config = common.get_config()
    common.check_variant('configs/ave.py', arg, 'pretrained', 'runlocal')
    config.loss.multi_label = True
    config.train.update({'steps': 6000, 'batch': 64, 'eval_every_steps': 300, 'save_every_steps': 300})
    if arg == 'pretrained':
        return common.pretrained(config)
    return common.runlocal(common.tiny(config)) if arg == 'runlocal' else config

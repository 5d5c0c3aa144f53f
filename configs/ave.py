"""AVE from its videos: 28 audio-visual events, one a clip of ten seconds, or none of it in some (Tian et al., arXiv
1803.08842).

  python -m data_prep.ave --annotations=AVE --videos=AVE/AVE --out=DATA
  python -m stattn_jax.main --config=configs/ave.py --workdir=RUN --config.data.dir=DATA

Trained on the video's label alone ("weakly supervised"); each class is a yes or no of its own, since in a sixth of the
seconds nothing happens.
Hardware: one accelerator expected; hours and numbers: not yet run here. `:runlocal` is twenty steps on a laptop.

`:pretrained` begins with published weights, ResNet-50 for frames and CNN14 for sound: prepare with --mel=panns_16k;
docs/weights.md says where the two files come from. Not yet run here on the whole set.

Published segment accuracy, *supervised* by the labels of each second: AVEL 72.7, CMRAN 77.4, CMBS 79.3, DG-SCT 82.2
(DG-SCT's table and repository). Saying the true label of the video in every second gives 82.2: read
`segments/accuracy_partial` and the F1 beside it. Compare only models that selected on val; several published ones
selected on test (docs/datasets.md).
"""

from configs import common


def get_config(arg: str = ''):
    config = common.get_config()
    common.check_variant('configs/ave.py', arg, 'pretrained', 'runlocal')
    config.loss.binary = True
    config.train.update({'steps': 6000, 'batch': 64, 'eval_every_steps': 300, 'save_every_steps': 300})
    if arg == 'pretrained':
        return common.pretrained(config)
    return common.runlocal(common.tiny(config)) if arg == 'runlocal' else config

"""VGGSound: 309 classes, ten-second clips with one label each (Chen et al., arXiv 2004.14368).

  python -m data_prep.vggsound --annotations=ANNOTATIONS --videos=VIDEOS --val=0.02 --vggss=vggss.json \\
      --vggsounder=vggsounder.csv --out=DATA
  python -m stattn_jax.main --config=configs/vggsound.py --workdir=RUN --config.data.dir=DATA

VGG-SS boxes and VGGSounder labels score its test split. Hardware: 8 accelerators of 80 GB expected; hours and numbers:
not yet run here. `:runlocal` shrinks it to a few steps on a laptop.

`:pretrained` begins with published weights, ResNet-50 for frames and CNN14 for audio: prepare the data with
--mel=panns_16k. docs/weights.md lists the sources of the two files. Not yet run here on the whole set.

Published, top-1: two ResNet-18 from scratch, concatenated, 48.1 (BalanceBenchmark); MBT 64.1, CAV-MAE 65.5, EquiAV
67.1, pretrained (EquiAV's poster). Published on VGG-SS, cIoU@0.5 / AUC: EZ-VSL 39.3 / 39.8 (its repository; trained on
all of VGGSound), a blob in the middle of every frame 33.9 / 37.4, the best that the protocol allows 50.5 / 49.5
(docs/datasets.md).
"""

from configs import common


def get_config(arg: str = ''):
    config = common.get_config()
    common.check_variant('configs/vggsound.py', arg, 'pretrained', 'runlocal')
    config.data.fit = 'crop'
    config.optim.warmup_steps = 2000
    config.train.update({'steps': 60_000, 'batch': 256, 'eval_every_steps': 3000, 'save_every_steps': 1500})
    if arg == 'pretrained':
        return common.pretrained(config)
    return common.runlocal(common.tiny(config)) if arg == 'runlocal' else config

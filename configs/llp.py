"""LLP from videos: 25 classes, several per clip, each seen, heard or both (Tian et al., arXiv 2007.10558).

  python -m data_prep.llp --annotations=LLP --videos=VIDEOS --out=DATA
  python -m stattn_jax.main --config=configs/llp.py --workdir=RUN --config.data.dir=DATA

The videos were never released, so you have to collect them yourself. Hardware: one accelerator expected; hours and
numbers: not yet run here. `:runlocal` runs twenty steps on a laptop.

Published F (audio, visual, audio-visual, Type@AV, Event@AV) by segment: HAN 60.1 52.9 48.9 54.0 55.4, MA 60.3 60.0 55.1
58.9 57.9, JoMoLD 61.3 63.8 57.2 60.8 59.9; by event: HAN 51.3 48.9 43.0 47.7 48.0, JoMoLD 53.9 59.9 49.6 54.5 52.5
(JoMoLD's README). Predicting the video's true labels in all seconds and both modalities gives 76.1 60.3 52.6 63.0 71.7
by segment; every evaluation prints such trivial predictors.
"""

from configs import common


def get_config(arg: str = ''):
    config = common.get_config()
    common.check_variant('configs/llp.py', arg, 'runlocal')
    config.train.update(
        {
            'steps': 15_000,
            'batch': 64,
            'eval_every_steps': 750,
            'save_every_steps': 750,
            'best_metric': 'parsing/segment_type',
        }
    )
    return common.runlocal(common.tiny(config)) if arg == 'runlocal' else config

"""VGGSound: 309 classes, ten-second clips, one label each (Chen et al., arXiv 2004.14368).

  python -m data_prep.folder --videos=VIDEOS --clips=clips.csv --short_side=256 --out=DATA
  python -m stattn_jax.main --config=configs/vggsound.py --workdir=RUN --config.data.dir=DATA

Hardware: 8 accelerators of 80 GB expected; hours and accuracy: not yet run. `:runlocal` shrinks it to a few steps on a laptop.
"""

from configs import common


def get_config(arg: str = ''):
    config = common.get_config()
    if arg not in ('', 'runlocal'):
        raise ValueError(f'configs/vggsound.py:{arg}: the variants are "" and runlocal')
    config.data.fit = 'crop'
    config.optim.warmup_steps = 2000
    config.train.update({'steps': 60_000, 'batch': 256, 'eval_every_steps': 3000, 'save_every_steps': 1500})
    if arg == 'runlocal':
        config = common.tiny(config)
        config.train.update(
            {'steps': 20, 'batch': 8, 'log_every_steps': 5, 'eval_every_steps': 10, 'save_every_steps': 10}
        )
        config.eval.update({'batch': 8, 'leak_clips': 8})
    return config

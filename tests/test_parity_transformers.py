"""Vision transformers and AST are compared with the published code; their golden file is written.

pip install torch torchvision timm transformers safetensors
python tests/test_parity_transformers.py      # writes tests/golden/transformers.json anew
"""

import json

import drawn
import jax
import numpy as np
import pytest
from flax import nnx
from tiny import quick_compile  # noqa: F401  autouse

from stattn_jax.models.trunks import registry
from stattn_jax.weights import formats, match

torch = pytest.importorskip('torch')
timm = pytest.importorskip('timm')
transformers = pytest.importorskip('transformers')
pytest.importorskip('safetensors')

pytestmark = pytest.mark.slow

# By our name: timm's name and the side of the frames its weights were trained on.
VISUAL = {
    'vit_s16': ('vit_small_patch16_224', 224),
    'vit_b16': ('vit_base_patch16_224', 224),
    'dinov2_s14': ('vit_small_patch14_dinov2', 518),
    'dinov2_s14_registers': ('vit_small_patch14_reg4_dinov2', 518),
}
LIMIT = 1e-4


def fill(module, before='') -> dict:
    """Fills a reference with weights generated from its published names; returns the published file's content."""
    shapes = {before + name: tuple(x.shape) for name, x in module.state_dict().items()}
    if 'reg_token' in shapes:
        one, places, width = shapes['pos_embed']
        shapes |= {'register_tokens': shapes.pop('reg_token'), 'pos_embed': (one, places + 1, width)}
    file = {name: drawn.tensor(name, shape) for name, shape in shapes.items()}
    state = dict(file)
    if 'register_tokens' in file:
        # timm adds the position of the class token to it when it reads such a file.
        first, rest = np.split(file['pos_embed'], [1], axis=1)
        state |= {'cls_token': file['cls_token'] + first, 'pos_embed': rest, 'reg_token': state.pop('register_tokens')}
    module.load_state_dict({name.removeprefix(before): torch.tensor(x) for name, x in state.items()})
    module.eval()
    return file


def ours(modality, name, file, depth):
    """Our trunk with the weights of a file, loaded by the package's own reader."""
    trunk = registry.find(modality, name)
    return drawn.filled(trunk, formats.read(file), depth=depth)


def layers_of(model, x) -> list[np.ndarray]:
    """Embedded tokens, then the tokens after each block, then the output."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, x):
        model = nnx.merge(graphdef, state)
        found = [model.tokens(x)]
        for block in model.blocks:
            found.append(block(found[-1]))
        return [*found, model(x, train=False)]

    return [np.asarray(x) for x in run(nnx.as_pure(state), x)]


def layers_of_reference(module, blocks, norm, call) -> list[np.ndarray]:
    """The same layers of a reference; the last one holds all tokens after the final norm."""
    found = []
    hooks = [blocks[0].register_forward_pre_hook(lambda _, args: found.append(args[0]))]
    hooks += [layer.register_forward_hook(lambda _, args, out: found.append(out)) for layer in (*blocks, norm)]
    with torch.inference_mode():
        call()
    for hook in hooks:
        hook.remove()
    return [x.numpy() for x in found]


def check(found, expected, name, limit=LIMIT):
    """Checks that the largest error of each layer, relative to its largest value, is below the limit."""
    assert len(found) == len(expected)
    errors = []
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and np.ptp(theirs) > 0.1
        errors.append(np.abs(ours - theirs).max() / np.abs(theirs).max())
    print(f'{name}: largest relative error {max(errors):.1e}, of the output {errors[-1]:.1e}')
    assert max(errors) < limit, errors


def cells(tokens, height, width, patch):
    rows, columns = height // patch, width // patch
    return tokens[:, -rows * columns :].reshape(len(tokens), rows, columns, -1)


# ---------------------------------------------------------------------------------------------------------------------
# Frames
# ---------------------------------------------------------------------------------------------------------------------


def original_positions(position, rows, columns):
    """Resizes position embeddings as facebookresearch/dinov2 does for its files without registers."""
    side = round((position.shape[1] - 1) ** 0.5)
    grid = torch.tensor(position[:, 1:]).reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = torch.nn.functional.interpolate(grid, scale_factor=factors, mode='bicubic')
    assert grid.shape[2:] == (rows, columns)
    grid = grid.permute(0, 2, 3, 1).reshape(1, rows * columns, -1).numpy()
    return np.concatenate([position[:, :1], grid], axis=1)


def visual_reference(name, depth, height, width):
    """timm's network for frames of this size, and the weight file for the frame size it was trained on."""
    theirs, side = VISUAL[name]
    options = {'depth': depth, 'num_classes': 5}
    native = timm.create_model(theirs, img_size=side, **options)
    file = fill(native)
    if (height, width) == (side, side):
        return native, file
    if name != 'dinov2_s14':
        reference = timm.create_model(theirs, img_size=side, dynamic_img_size=True, **options)
        reference.load_state_dict(native.state_dict())
        return reference.eval(), file
    reference = timm.create_model(theirs, img_size=(height, width), **options)
    position = original_positions(file['pos_embed'], height // 14, width // 14)
    reference.load_state_dict(native.state_dict() | {'pos_embed': torch.tensor(position)})
    return reference.eval(), file


def visual_layers(name, depth, height, width, batch=2):
    reference, file = visual_reference(name, depth, height, width)
    frames = drawn.numbers(name, batch, height, width, 3)
    x = torch.tensor(frames.transpose(0, 3, 1, 2))
    found = layers_of_reference(reference, reference.blocks, reference.norm, lambda: reference(x))
    found[-1] = cells(found[-1], height, width, registry.find('visual', name).stride)
    return frames, file, found


@pytest.mark.parametrize(
    ('name', 'depth', 'height', 'width'),
    [
        ('vit_s16', 12, 224, 224),
        ('vit_s16', 2, 128, 128),
        ('vit_s16', 2, 320, 96),
        ('vit_b16', 2, 224, 224),
        ('vit_b16', 2, 96, 128),
        ('dinov2_s14', 12, 224, 224),
        ('dinov2_s14', 2, 518, 518),
        ('dinov2_s14', 2, 98, 560),
        ('dinov2_s14_registers', 2, 518, 518),
        ('dinov2_s14_registers', 12, 224, 224),
        ('dinov2_s14_registers', 2, 98, 560),
    ],
)
def test_layers_are_those_of_timm(tmp_path, name, depth, height, width):
    frames, file, expected = visual_layers(name, depth, height, width, batch=1)
    torch.save({key: torch.tensor(x) for key, x in file.items()}, tmp_path / 'file.pth')
    model = ours('visual', name, tmp_path / 'file.pth', depth)
    check(layers_of(model, frames), expected, f'{name} of {depth} layers, {height} x {width}')


@pytest.mark.parametrize(
    ('name', 'kind', 'side', 'size'),
    [
        ('vit_b16', 'ViT', 224, 224),
        ('dinov2_s14', 'Dinov2', 518, 518),
        ('dinov2_s14_registers', 'Dinov2WithRegisters', 518, 196),
    ],
)
def test_outputs_are_those_of_transformers(tmp_path, name, kind, side, size):
    width = match.width(registry.find('visual', name))
    patch = registry.find('visual', name).stride
    config = getattr(transformers, f'{kind}Config')(
        num_hidden_layers=2,
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=width // 64,
        patch_size=patch,
        image_size=side,
    )
    reference = getattr(transformers, f'{kind}Model')(config)
    fill(reference)
    reference.save_pretrained(tmp_path)
    frames = drawn.numbers(name, 1, size, size, 3)
    with torch.inference_mode():
        expected = reference(torch.tensor(frames.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    model = ours('visual', name, tmp_path / 'model.safetensors', 2)
    check([np.asarray(model(frames, train=False))], [cells(expected, size, size, patch)], f'{name} as {kind}')


# ---------------------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------------------


def cut(position, patches):
    """Cuts the position embeddings for shorter input as YuanGongND/ast does, with the same expression."""
    grid = position[:, 2:].reshape(1, 12, 101, -1)[:, :, 50 - int(patches / 2) : 50 - int(patches / 2) + patches]
    return np.concatenate([position[:, :2], grid.reshape(1, 12 * patches, -1)], axis=1)


def ast_layers(folder, depth, frames, batch=2):
    """Input and layers of transformers' network; writes the file for 1024 frames to `folder`."""
    Ast, Config = transformers.ASTForAudioClassification, transformers.ASTConfig
    native = Ast(Config(num_hidden_layers=depth, num_labels=5))
    fill(native)
    native.save_pretrained(folder)
    name = 'audio_spectrogram_transformer.embeddings.position_embeddings'
    position = cut(native.state_dict()[name].numpy(), (frames - 16) // 10 + 1)
    reference = Ast(Config(num_hidden_layers=depth, num_labels=5, max_length=frames))
    reference.load_state_dict(native.state_dict() | {name: torch.tensor(position)})
    trunk = reference.eval().audio_spectrogram_transformer
    x = drawn.numbers('ast', batch, frames, 128)
    found = layers_of_reference(trunk, trunk.layers, trunk.layernorm, lambda: trunk(torch.tensor(x)))
    found[-1] = (found[-1][:, 0] + found[-1][:, 1]) / 2
    return x, found


@pytest.mark.parametrize(('depth', 'frames'), [(12, 98), (2, 100), (2, 500), (2, 1024)])
def test_layers_are_those_of_ast_in_transformers(tmp_path, depth, frames):
    x, expected = ast_layers(tmp_path, depth, frames, batch=1)
    model = ours('audio', 'ast', tmp_path / 'model.safetensors', depth)
    found = layers_of(model, x)
    check(found, expected, f'ast of {depth} layers, {frames} frames')


def original_ast():
    """The original is timm's DeiT with a different first layer, saved from several devices with its classifier."""
    network = timm.create_model('deit_base_distilled_patch16_384', depth=2)
    network.patch_embed.proj = torch.nn.Conv2d(1, 768, 16, stride=10)
    network.pos_embed = torch.nn.Parameter(torch.zeros(1, 1214, 768))
    file = fill(network, before='v.')
    file |= {
        name: drawn.tensor(name, shape) for name, shape in (('mlp_head.0.bias', (768,)), ('mlp_head.1.bias', (5,)))
    }
    x = drawn.numbers('ast', 2, 98, 128)
    with torch.inference_mode():
        patches = network.patch_embed.proj(torch.tensor(x)[:, None].transpose(2, 3)).flatten(2).transpose(1, 2)
        first = [token.expand(len(x), -1, -1) for token in (network.cls_token, network.dist_token)]
        tokens = torch.cat([*first, patches], dim=1) + torch.tensor(cut(file['v.pos_embed'], 9))
        for block in network.blocks:
            tokens = block(tokens)
        tokens = network.norm(tokens).numpy()
    return x, {f'module.{name}': value for name, value in file.items()}, (tokens[:, 0] + tokens[:, 1]) / 2


def test_a_file_of_the_original_ast_gives_the_original_numbers(tmp_path):
    x, file, expected = original_ast()
    torch.save({name: torch.tensor(value) for name, value in file.items()}, tmp_path / 'audioset.pth')
    model = ours('audio', 'ast', tmp_path / 'audioset.pth', 2)
    check([np.asarray(model(x, train=False))], [expected], 'ast as the original')


# ---------------------------------------------------------------------------------------------------------------------
# The golden file
# ---------------------------------------------------------------------------------------------------------------------


def golden_numbers() -> dict[str, list[float]]:
    """Sampled values that test_vit.py and test_ast.py compare with, from networks of two layers."""
    outputs = {name: visual_layers(name, 2, *size)[2][-1] for name, size in drawn.FRAMES.items()}
    outputs['ast'] = original_ast()[2]
    return {name: [float(f'{x:.6g}') for x in drawn.sample(output)] for name, output in outputs.items()}


def test_golden_numbers_are_those_of_the_references():
    for name, numbers in golden_numbers().items():
        np.testing.assert_allclose(drawn.golden(name), numbers, rtol=1e-4, atol=1e-4)


if __name__ == '__main__':
    drawn.GOLDEN.write_text(json.dumps(golden_numbers(), indent=1) + '\n')

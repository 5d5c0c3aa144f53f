"""Post-hoc explanations of a network, from its gradients or from its outputs for changed clips, one clip per call.

All of `METHODS` have one signature, so that a caller can go through the table and `jax.vmap` over clips inside one jit:

    method(model, clip, absent, class_, key) -> Map

They explain the logit of `class_`, an integer scalar. `absent` is the clip with everything removed (blurred, muted): it
is the baseline of the gradients and the replacement in occlusion and RISE. `key` is a random key, which only RISE uses.
A modality that the network does not use, and segments that are not valid, get 0. All raise ValueError, when traced, for
frames that do not divide evenly into the model's cells. The visual and audio values have the same unit in the first two
methods and in occlusion; in Grad-CAM and RISE they are comparable only within a modality.

STAN must be built with `detach_evidence=False` here: its stop_gradient changes no logit, but hides the visual cells'
evidence from every gradient. For each clip of the caller's vmap, integrated gradients hold `STEPS` clips at once,
occlusion holds one frame per hidden cell of one segment, and RISE holds `CHUNK` clips.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.models.encoders import Encoders
from stattn_jax.study.clips import Clip, Map

# Number of pieces of the path of integrated gradients.
STEPS = 16
# RISE: number of masks, probability that a value of a mask is 1, rows and columns of each frame's coarse mask.
MASKS, KEPT, COARSE = 200, 0.5, 4
# Masks that go through the network at once, for each clip of the caller's vmap. It should divide MASKS, otherwise XLA
# compiles a second program for the remainder.
CHUNK = 10


def gradient_input(model: Encoders, clip: Clip, absent: Clip, class_: jax.Array, key: jax.Array) -> Map:
    """(clip - absent) * gradient at the clip, summed within cells and segments.

    This is the drop of the logit that a linear approximation at the clip predicts.
    """
    del key
    _patch(model, clip)
    return _along(model, clip, absent, _gradient(model, clip, class_))


def integrated_gradients(model: Encoders, clip: Clip, absent: Clip, class_: jax.Array, key: jax.Array) -> Map:
    """(clip - absent) * mean gradient at the midpoints of `STEPS` pieces of the straight path between them.

    All values together sum to about logit(clip) - logit(absent). Source: Sundararajan et al., arXiv 1703.01365.
    """
    del key
    _patch(model, clip)

    def gradient(share):
        between = jax.tree.map(lambda there, none: none + share * (there - none), clip[:2], absent[:2])
        return _gradient(model, Clip(*between, clip.valid), class_)

    # vmap instead of lax.scan: within a loop XLA computes gradients of convolutions three times slower (jax 0.10.2 on
    # CPU, 2026-11-23).
    gradients = jax.vmap(gradient)((jnp.arange(STEPS) + 0.5) / STEPS)
    return _along(model, clip, absent, jax.tree.map(lambda x: x.mean(axis=0), gradients))


def grad_cam(model: Encoders, clip: Clip, absent: Clip, class_: jax.Array, key: jax.Array) -> Map:
    """relu(sum_d w_d cell_d) for the cells, and relu(gradient . vector) for each segment's sound.

    w is the mean gradient over a frame's cells, taken at the output of the trunk; each frame has its own w. A segment's
    sound is one vector, so its gradient needs no mean. `absent` is not used. Source: Selvaraju et al., arXiv
    1610.02391.
    """
    del absent, key
    _patch(model, clip)
    units = _read(model, clip)
    slopes = jax.grad(lambda units: _decide(model, units, clip.valid, class_))(units)
    units, slopes = jax.tree.map(lambda x: x.astype(jnp.float32), (units, slopes))
    visual = audio = None
    if model.uses_video:
        visual = jax.nn.relu(jnp.einsum('tsd,td->ts', units[0], slopes[0].mean(axis=1), precision='highest'))
    if model.uses_audio:
        audio = jax.nn.relu(jnp.einsum('td,td->t', units[1], slopes[1], precision='highest'))
    return _map(model, clip, visual, audio)


def occlusion(model: Encoders, clip: Clip, absent: Clip, class_: jax.Array, key: jax.Array) -> Map:
    """The drop of the logit when `absent` replaces 3 x 3 cells around a cell, in its segment, or a segment's sound.

    At the border the window is cut off. Source: Zeiler and Fergus, arXiv 1311.2901.
    """
    del key
    _patch(model, clip)
    seen, heard = _read(model, clip)
    whole = _decide(model, (seen, heard), clip.valid, class_)
    segments = jnp.arange(len(clip.valid))
    visual = audio = None
    if model.uses_video:
        hidden_shw1 = _windows(model, clip)

        def falls(t):
            frames = jnp.where(hidden_shw1, absent.frames[t], clip.frames[t])
            changed = model.cells(frames[None], train=False)[0]
            return whole - jax.vmap(lambda x: _decide(model, (seen.at[t].set(x), heard), clip.valid, class_))(changed)

        # One segment at a time: hiding each cell of a whole clip would take as many frames as a training batch.
        visual = jax.lax.map(falls, segments)
    if model.uses_audio:
        silence = model.sound(absent.log_mel[None], train=False)[0]
        muted = jax.vmap(lambda t: heard.at[t].set(silence[t]))(segments)
        audio = whole - jax.vmap(lambda x: _decide(model, (seen, x), clip.valid, class_))(muted)
    return _map(model, clip, visual, audio)


def rise(model: Encoders, clip: Clip, absent: Clip, class_: jax.Array, key: jax.Array) -> Map:
    """sum_i (logit_i - mean logit) mask_i / (n p), over n = `MASKS` random masks of `clip` and `absent`, p = `KEPT`.

    This is the estimator of Petsiuk et al., arXiv 1806.07421, minus the mean logit, whose noise would otherwise
    dominate the map. Picture: as in the paper, a frame's mask is sampled on a 4 x 4 grid, enlarged bilinearly to a
    fourth more than the frame, and cropped to it at a random place; a cell's value is the mean over its pixels. Sound:
    each segment is kept or replaced as a whole.
    """
    _patch(model, clip)
    k_grid, k_shift, k_sound = jax.random.split(key, 3)
    t, *size = clip.frames.shape[:3]
    grids = jax.random.bernoulli(k_grid, KEPT, (MASKS, t, COARSE, COARSE)).astype(jnp.float32)
    shifts = jax.random.randint(k_shift, (MASKS, t, 2), 0, jnp.array([-(-side // COARSE) for side in size]))
    sounds = jax.random.bernoulli(k_sound, KEPT, (MASKS, t))
    (_, heard), (_, silence) = (_read(model, x) for x in (clip, absent))

    def ask(drawn):
        grid, shift, sound = drawn
        mask = jax.vmap(lambda g, s: _enlarge(g, s, size))(grid, shift)
        seen = None
        if model.uses_video:
            mixed = absent.frames + mask[..., None] * (clip.frames - absent.frames)
            seen = model.cells(mixed[None], train=False)[0]
        mixed = jnp.where(sound[:, None], heard, silence) if model.uses_audio else None
        return _decide(model, (seen, mixed), clip.valid, class_), _by_cell(model, clip, mask[..., None]).mean(axis=-1)

    logits, masks = jax.lax.map(ask, (grids, shifts, sounds), batch_size=CHUNK)
    weights = (logits - logits.mean()) / (MASKS * KEPT)
    visual = jnp.einsum('n,nts->ts', weights, masks, precision='highest') if model.uses_video else None
    audio = jnp.einsum('n,nt->t', weights, sounds, precision='highest') if model.uses_audio else None
    return _map(model, clip, visual, audio)


METHODS: dict[str, Callable[[Encoders, Clip, Clip, jax.Array, jax.Array], Map]] = {
    'gradient_input': gradient_input,
    'integrated_gradients': integrated_gradients,
    'grad_cam': grad_cam,
    'occlusion': occlusion,
    'rise': rise,
}

# ---------------------------------------------------------------------------------------------------------------------
# One clip and its logit
# ---------------------------------------------------------------------------------------------------------------------


def _read(model, clip):
    """Returns the cells [t s d'] and the sound [t d], None for a modality that the model does not use."""
    return jax.tree.map(lambda x: x[0], model.encode(clip.frames[None], clip.log_mel[None], train=False))


def _decide(model, units, valid, class_):
    seen, heard = jax.tree.map(lambda x: x[None], units)
    return model.forward_heads(seen, heard, valid[None])[0][0, class_]


def _gradient(model, clip, class_):
    """Returns the gradient of the logit to frames and log-mel; zeros for a modality that the model does not use."""
    return jax.grad(lambda shown: _decide(model, _read(model, Clip(*shown, clip.valid)), clip.valid, class_))(clip[:2])


def _along(model, clip, absent, gradient):
    """Returns the map of a gradient times (clip - absent)."""
    frames, log_mel = jax.tree.map(lambda slope, there, none: slope * (there - none), gradient, clip[:2], absent[:2])
    return _map(model, clip, _by_cell(model, clip, frames).sum(axis=-1), log_mel.sum(axis=(1, 2)))


def _map(model, clip, visual, audio):
    """Returns the map, with 0 for None and for segments that are not valid."""
    h, w = model.grid(*clip.frames.shape[1:3])
    visual = jnp.zeros((len(clip.valid), h * w)) if visual is None else visual
    audio = jnp.zeros(len(clip.valid)) if audio is None else audio
    return Map(jnp.where(clip.valid[:, None], visual, 0.0), jnp.where(clip.valid, audio, 0.0))


# ---------------------------------------------------------------------------------------------------------------------
# Pixels and cells
# ---------------------------------------------------------------------------------------------------------------------


def _patch(model, clip):
    """Returns rows and columns of pixels per cell.

    Every method calls this first, so that frames of a wrong size raise this error before any other.
    """
    size = clip.frames.shape[1:3]
    grid = model.grid(*size)
    if size[0] % grid[0] or size[1] % grid[1]:
        raise ValueError(
            f'frames of {size[0]} x {size[1]} do not divide evenly into the {grid[0]} x {grid[1]} cells of the model'
        )
    return size[0] // grid[0], size[1] // grid[1]


def _by_cell(model, clip, x_thwk):
    """Reshapes [t H W k] of the clip's pixels to [t s p], with all values of a cell in the last axis."""
    rows, columns = _patch(model, clip)
    t, height, width, k = x_thwk.shape
    x = x_thwk.reshape(t, height // rows, rows, width // columns, columns, k).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(t, -1, rows * columns * k)


def _windows(model, clip):
    """Returns bool [s H W 1]: the pixels of the 3 x 3 cells around each cell."""
    sides = zip(model.grid(*clip.frames.shape[1:3]), _patch(model, clip))
    near_rows, near_columns = (
        np.repeat(abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 1, pixels, axis=1) for n, pixels in sides
    )
    windows = near_rows[:, None, :, None] & near_columns[None, :, None, :]
    return windows.reshape(-1, *windows.shape[2:], 1)


def _enlarge(grid_ij, shift, size):
    """Enlarges a coarse mask [i j] bilinearly and crops it at `shift`: [H W].

    The enlarged size is (COARSE + 1) / COARSE times the frame's size.
    """

    def weights(side, start):
        # Linear interpolation between the sampled values, constant beyond the outermost centres, as in
        # `jax.image.resize`.
        enlarged = (COARSE + 1) * -(-side // COARSE)
        places = jnp.clip((jnp.arange(side) + start + 0.5) * COARSE / enlarged - 0.5, 0, COARSE - 1)
        return jax.nn.relu(1 - abs(places[:, None] - jnp.arange(COARSE)))

    rows, columns = (weights(side, start) for side, start in zip(size, shift))
    return jnp.einsum('hi,ij,wj->hw', rows, grid_ij, columns, precision='highest')

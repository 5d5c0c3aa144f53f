"""Post-hoc explanations of a network, from its gradients or from its outputs for changed clips, one clip per call.

All of `EXPLAINERS` have one signature, so that a caller can go through the table and `jax.vmap` over clips:

    explainer(network, clip, absent, class_, key) -> Map

They explain the logit of `class_`, an integer scalar, of a `Classifier`. `absent` is the clip with everything removed
(blurred, muted): it is the baseline of the gradients and the replacement in occlusion and RISE. `key` is a random key,
which only RISE uses. A modality that the network does not use, and segments that are not valid, get 0. All raise
ValueError, when traced, for frames that do not divide evenly into the cells. The visual and audio values have the same
unit in the first two methods and in occlusion; in Grad-CAM and RISE they are comparable only within a modality.

All but Grad-CAM need only a function; Grad-CAM needs a network in two stages. A new explainer is a function of this
signature and an entry in `EXPLAINERS`; the study finds it by its name (docs/extending.md).

For each clip of the caller's vmap, integrated gradients hold `STEPS` clips at once, occlusion holds one frame per
hidden cell of one segment (one clip per cell, if the network has no encoder of frames), and RISE holds `CHUNK` clips.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stattn_jax.attribution.arrays import ClipArrays, Map
from stattn_jax.attribution.classifier import Classifier

Explainer = Callable[[Classifier, ClipArrays, ClipArrays, jax.Array, jax.Array], Map]

# Number of pieces of the path of integrated gradients.
STEPS = 16
# RISE: number of masks, probability that a value of a mask is 1, rows and columns of each frame's coarse mask.
MASKS, KEPT, COARSE = 200, 0.5, 4
# Masks that go through the network at once, for each clip of the caller's vmap. It should divide MASKS, otherwise XLA
# compiles a second program for the remainder.
CHUNK = 10


def gradient_input(network: Classifier, clip: ClipArrays, absent: ClipArrays, class_: jax.Array, key: jax.Array) -> Map:
    """(clip - absent) * gradient at the clip, summed within cells and segments.

    This is the drop of the logit that a linear approximation at the clip predicts.
    """
    del key
    _patch(network, clip)
    return _along(network, clip, absent, _gradient(network, clip, class_))


def integrated_gradients(
    network: Classifier, clip: ClipArrays, absent: ClipArrays, class_: jax.Array, key: jax.Array
) -> Map:
    """(clip - absent) * mean gradient at the midpoints of `STEPS` pieces of the straight path between them.

    All values together sum to about logit(clip) - logit(absent). Source: Sundararajan et al., arXiv 1703.01365.
    """
    del key
    _patch(network, clip)

    def gradient(share):
        frames, log_mel = jax.tree.map(lambda there, none: none + share * (there - none), clip[:2], absent[:2])
        return _gradient(network, ClipArrays(frames, log_mel, clip.valid), class_)

    # vmap instead of lax.scan: within a loop XLA computes gradients of convolutions three times slower (jax 0.10.2 on
    # CPU, 2026-11-23).
    gradients = jax.vmap(gradient)((jnp.arange(STEPS) + 0.5) / STEPS)
    return _along(network, clip, absent, jax.tree.map(lambda x: x.mean(axis=0), gradients))


def grad_cam(network: Classifier, clip: ClipArrays, absent: ClipArrays, class_: jax.Array, key: jax.Array) -> Map:
    """relu(sum_d w_d cell_d) for the cells, and relu(gradient . vector) for each segment's sound.

    w is the mean gradient over a frame's cells, taken at the output of the encoder; each frame has its own w. A
    segment's sound is one vector, so its gradient needs no mean. `absent` is not used. Raises ValueError for a network
    without the encoders of the modalities that it uses. Source: Selvaraju et al., arXiv
    1610.02391.
    """
    del absent, key
    _patch(network, clip)
    encoded = (network.uses_video, network.frame_encoder), (network.uses_audio, network.audio_encoder)
    if any(used and encoder is None for used, encoder in encoded):
        raise ValueError('Grad-CAM needs the cells and the sound of a network in two stages; give it both encoders')
    units = _encode(network, clip)
    slopes = jax.grad(lambda units: _logit(network, units, clip.valid, class_))(units)
    units, slopes = jax.tree.map(lambda x: x.astype(jnp.float32), (units, slopes))
    visual = audio = None
    if network.uses_video:
        visual = jax.nn.relu(jnp.einsum('tsd,td->ts', units[0], slopes[0].mean(axis=1), precision='highest'))
    if network.uses_audio:
        audio = jax.nn.relu(jnp.einsum('td,td->t', units[1], slopes[1], precision='highest'))
    return _map(network, clip, visual, audio)


def occlusion(network: Classifier, clip: ClipArrays, absent: ClipArrays, class_: jax.Array, key: jax.Array) -> Map:
    """The drop of the logit when `absent` replaces 3 x 3 cells around a cell, in its segment, or a segment's sound.

    At the border the window is cut off. Source: Zeiler and Fergus, arXiv 1311.2901.
    """
    del key
    _patch(network, clip)
    cells, sound = _encode(network, clip)
    whole = _logit(network, (cells, sound), clip.valid, class_)
    segments = jnp.arange(len(clip.valid))
    visual = audio = None
    if network.uses_video:
        hidden_shw1 = _windows(network, clip)

        def drops(t):
            frames = jnp.where(hidden_shw1, absent.frames[t], clip.frames[t])
            changed = network.encode_frames(frames[None])[0]
            return whole - jax.vmap(lambda x: _logit(network, (cells.at[t].set(x), sound), clip.valid, class_))(changed)

        # One segment at a time: hiding each cell of a whole clip would take as many frames as a training batch.
        visual = jax.lax.map(drops, segments)
    if network.uses_audio:
        silence = network.encode_audio(absent.log_mel[None])[0]
        muted = jax.vmap(lambda t: sound.at[t].set(silence[t]))(segments)
        audio = whole - jax.vmap(lambda x: _logit(network, (cells, x), clip.valid, class_))(muted)
    return _map(network, clip, visual, audio)


def rise(network: Classifier, clip: ClipArrays, absent: ClipArrays, class_: jax.Array, key: jax.Array) -> Map:
    """sum_i (logit_i - mean logit) mask_i / (n p), over n = `MASKS` random masks of `clip` and `absent`, p = `KEPT`.

    This is the estimator of Petsiuk et al., arXiv 1806.07421, minus the mean logit, whose noise would otherwise
    dominate the map. Picture: as in the paper, a frame's mask is sampled on a 4 x 4 grid, enlarged bilinearly to a
    fourth more than the frame, and cropped to it at a random place; a cell's value is the mean over its pixels. Sound:
    each segment is kept or replaced as a whole.
    """
    _patch(network, clip)
    k_grid, k_shift, k_sound = jax.random.split(key, 3)
    t, *size = clip.frames.shape[:3]
    grids = jax.random.bernoulli(k_grid, KEPT, (MASKS, t, COARSE, COARSE)).astype(jnp.float32)
    shifts = jax.random.randint(k_shift, (MASKS, t, 2), 0, jnp.array([-(-side // COARSE) for side in size]))
    kept_sounds = jax.random.bernoulli(k_sound, KEPT, (MASKS, t))
    (_, sound), (_, silence) = (_encode(network, x) for x in (clip, absent))

    def masked(sample):
        grid, shift, kept_sound = sample
        mask = jax.vmap(lambda g, s: _enlarge(g, s, size))(grid, shift)
        cells = mixed = None
        if network.uses_video:
            frames = absent.frames + mask[..., None] * (clip.frames - absent.frames)
            cells = network.encode_frames(frames[None])[0]
        if network.uses_audio:
            mixed = jnp.where(kept_sound.reshape(-1, *(1,) * (sound.ndim - 1)), sound, silence)
        return _logit(network, (cells, mixed), clip.valid, class_), _by_cell(network, clip, mask[..., None]).mean(
            axis=-1
        )

    logits, masks = jax.lax.map(masked, (grids, shifts, kept_sounds), batch_size=CHUNK)
    weights = (logits - logits.mean()) / (MASKS * KEPT)
    visual = jnp.einsum('n,nts->ts', weights, masks, precision='highest') if network.uses_video else None
    audio = jnp.einsum('n,nt->t', weights, kept_sounds, precision='highest') if network.uses_audio else None
    return _map(network, clip, visual, audio)


EXPLAINERS: dict[str, Explainer] = {
    'gradient_input': gradient_input,
    'integrated_gradients': integrated_gradients,
    'grad_cam': grad_cam,
    'occlusion': occlusion,
    'rise': rise,
}


def explain(
    name: str, network: Classifier, clips: ClipArrays, absent: ClipArrays, classes_n: jax.Array, seed: int = 0
) -> Map:
    """Explains one class of each of n clips with the explainer called `name`: Map of [n t s] and [n t].

    Raises ValueError, which lists the known names, if there is no explainer of this name.
    """
    explainer = find(name)

    @jax.jit
    def explain_all(clips, absent, classes_n, keys):
        return jax.lax.map(lambda one: explainer(network, *one), (clips, absent, classes_n, keys))

    return explain_all(clips, absent, jnp.asarray(classes_n), jax.random.split(jax.random.key(seed), len(classes_n)))


def find(name: str) -> Explainer:
    """Returns an explainer; raises ValueError, which lists the known names, if there is none of this name."""
    if name not in EXPLAINERS:
        raise ValueError(f'there is no explainer {name!r}; expected one of {", ".join(EXPLAINERS)}')
    return EXPLAINERS[name]


# ---------------------------------------------------------------------------------------------------------------------
# One clip and its logit
# ---------------------------------------------------------------------------------------------------------------------


def _encode(network, clip):
    """Returns the inputs of the head for the frames [t ...] and the log-mel [t ...], None for an unused modality."""
    units = network.encode_frames(clip.frames[None]), network.encode_audio(clip.log_mel[None])
    return jax.tree.map(lambda x: x[0], units)


def _logit(network, units, valid, class_):
    return network.head(*jax.tree.map(lambda x: x[None], units), valid[None])[0, class_]


def _gradient(network, clip, class_):
    """Returns the gradient of the logit to frames and log-mel; zeros for a modality that the network does not use."""

    def logit(inputs):
        frames, log_mel = inputs
        return _logit(network, _encode(network, ClipArrays(frames, log_mel, clip.valid)), clip.valid, class_)

    return jax.grad(logit)(clip[:2])


def _along(network, clip, absent, gradient):
    """Returns the map of a gradient times (clip - absent)."""
    frames, log_mel = jax.tree.map(lambda slope, there, none: slope * (there - none), gradient, clip[:2], absent[:2])
    return _map(network, clip, _by_cell(network, clip, frames).sum(axis=-1), log_mel.sum(axis=(1, 2)))


def _map(network, clip, visual, audio):
    """Returns the map, with 0 for None and for segments that are not valid."""
    h, w = network.grid
    visual = jnp.zeros((len(clip.valid), h * w)) if visual is None else visual
    audio = jnp.zeros(len(clip.valid)) if audio is None else audio
    return Map(jnp.where(clip.valid[:, None], visual, 0.0), jnp.where(clip.valid, audio, 0.0))


# ---------------------------------------------------------------------------------------------------------------------
# Pixels and cells
# ---------------------------------------------------------------------------------------------------------------------


def _patch(network, clip):
    """Returns rows and columns of pixels per cell.

    Every method calls this first, so that frames of a wrong size raise this error before any other.
    """
    size = clip.frames.shape[1:3]
    grid = network.grid
    if size[0] % grid[0] or size[1] % grid[1]:
        raise ValueError(
            f'frames of {size[0]} x {size[1]} do not divide evenly into the {grid[0]} x {grid[1]} cells of the model'
        )
    return size[0] // grid[0], size[1] // grid[1]


def _by_cell(network, clip, x_thwk):
    """Reshapes [t H W k] of the clip's pixels to [t s p], with all values of a cell in the last axis."""
    rows, columns = _patch(network, clip)
    t, height, width, k = x_thwk.shape
    x = x_thwk.reshape(t, height // rows, rows, width // columns, columns, k).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(t, -1, rows * columns * k)


def _windows(network, clip):
    """Returns bool [s H W 1]: the pixels of the 3 x 3 cells around each cell."""
    sides = zip(network.grid, _patch(network, clip))
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

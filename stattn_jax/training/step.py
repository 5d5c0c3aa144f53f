"""One pure training step and one pure evaluation step; the strategy in runtime/parallel.py compiles them.

The state is a dict of arrays {params, rest, opt_state, score_mean, seed, step}. Only a model whose logit is a sum of
terms (`model.additive`) has score_mean, and parts of the loss beside the main one. All random numbers come from
fold_in(key(seed), step); the seed is in the state and not in the program, so that runs with another seed reuse the
compiled program. `axis` names the devices that share the batch, None on one device; a step and its random numbers are
the same on any number of devices.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax
from flax import nnx

from stattn_jax.training import losses
from stattn_jax.training.augment import Augment, augment_features, augment_frames, augment_mel, mix, resize_frames
from stattn_jax.training.optim import norm
from stattn_jax.training.sharded_random import ShardedRandom

# The number of negatives for which the whole attention is computed (mismatched_uniform, mismatched_mil). The loss
# correspondence needs less computation.
ATTENDED_NEGATIVES = 2

State = dict[str, Any]
Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Loss:
    """Weights of the parts of the loss, beside the main part of weight 1; training/losses.py explains their purpose.

    multi_label: each class has an independent sigmoid, as for clips with several labels or none.
    label_smoothing: label smoothing.
    audio, visual: classification by the audio path alone and by the visual path alone.
    frame_mil: classification of single frames by class evidence pooled over cells at `frame_mil_sharpness`.
    correspondence: audio against its own frames and against the frames of `negatives` other clips.
    mismatched_uniform: under mismatched audio, the visual contribution must not favour any class.
    attention: the attention weights must find the cells that the visual classifier assigns to the label.
    mismatched_mil: under mismatched audio, the visual contribution must predict the class probabilities that the
      classifier of `frame_mil` gives.
    """

    multi_label: bool = False
    label_smoothing: float = 0.0
    audio: float = 0.5
    visual: float = 1.0
    frame_mil: float = 1.0
    frame_mil_sharpness: float = 1.0
    correspondence: float = 1.0
    mismatched_uniform: float = 1.0
    attention: float = 0.0
    mismatched_mil: float = 0.0
    negatives: int = 2


@dataclasses.dataclass(frozen=True)
class Drop:
    """Rates at which training removes cells, (modality, segment) units and whole modalities from the attention."""

    cell: float = 0.0
    segment: float = 0.0
    modality: float = 0.0


def init_state(model: Any, optimiser: optax.GradientTransformation, classes: int, seed: jax.Array) -> State:
    """Returns the state at step 0 of an nnx.Module with `additive`; `seed` is an int32."""
    _, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]  # Flax declares any number of states.
    params, rest = nnx.as_pure(params), nnx.as_pure(rest)
    state = {'params': params, 'rest': rest, 'opt_state': optimiser.init(params), 'seed': seed}
    state['step'] = jnp.zeros((), jnp.int32)
    return state | ({'score_mean': jnp.zeros((2, classes))} if model.additive else {})


def train_step(
    graphdef: nnx.GraphDef,
    state: State,
    batch: Batch,
    *,
    optimiser: optax.GradientTransformation,
    accumulate: int = 1,
    axis: str | None = None,
    **options,
) -> tuple[State, dict[str, jax.Array]]:
    """Performs one update; returns the new state and replicated scalars `train/...`.

    accumulate: the number of equal micro-batches, one after the other in the rows of each device, over which the
      gradients are averaged before the update, in the memory of one micro-batch. The statistics of batch normalisation,
      the clips that are mixed or mismatched, and the random numbers are those of each micro-batch; all else, the
      scalars included, is as for the whole batch.
    options: of `_gradients`.
    """
    key = jax.random.fold_in(jax.random.key(state['seed']), state['step'])
    gradients: Callable[..., Any] = functools.partial(_gradients, graphdef, axis=axis, **options)
    if accumulate > 1:
        gradients = functools.partial(_accumulated, gradients, accumulate)
    rest, grads, parts, sums = gradients(state['params'], state['rest'], batch, key)
    if axis:
        grads, parts = _mean_over(axis, (grads, parts))
    scores = {name: mean_scores(total, count, axis) for name, (total, count) in sums.items()}
    updates, opt_state = optimiser.update(grads, state['opt_state'], state['params'])
    params = optax.apply_updates(state['params'], updates)
    # A running average over the last few hundred steps; during the first 100 steps it is the plain mean.
    rate = jnp.maximum(0.01, 1.0 / (state['step'] + 1))
    new_state = {
        'params': params,
        'rest': rest,
        'opt_state': opt_state,
        'seed': state['seed'],
        'step': state['step'] + 1,
        **{name: state[name] + rate * (score - state[name]) for name, score in scores.items()},
    }
    norms = {
        'l2_grads': norm(grads),
        'l2_params': norm(params),
        'l2_updates': norm(updates),
    }
    return new_state, {f'train/{name}': value for name, value in (parts | norms).items()}


def _gradients(
    graphdef: nnx.GraphDef,
    params,
    rest,
    batch: Batch,
    key: jax.Array,
    *,
    loss: Loss,
    augment: Augment,
    drop: Drop,
    frame_size: int,
    mel_log: tuple[float, float] = (1.0, 0.01),
    axis: str | None = None,
):
    """Returns the new statistics, the gradients, the parts of the loss, and the sums of which `mean_scores` is made.

    `mel_log` is described in augment.augment_mel.
    """
    k_frames, k_mel, k_mix, k_drop = jax.random.split(key, 4)
    inputs = read_inputs(batch) | {'labels': batch['labels']}
    if has_pixels(batch):
        inputs['frames'] = augment_frames(k_frames, inputs['frames'], frame_size, augment, axis)
    else:
        inputs['frames'] = augment_features(k_frames, inputs['frames'], augment, axis)
    if has_log_mel(batch):
        others = losses.other_clips(inputs['log_mel'], 1, axis) if augment.mel_background else inputs['log_mel']
        inputs['log_mel'] = augment_mel(k_mel, inputs['log_mel'], augment, others, mel_log, axis)
    valid, modalities = batch['valid'], modalities_of(batch)
    units = valid[:, None] & modalities[:, :, None]
    if augment.mixup:
        others, other_modalities = losses.other_clips((inputs, modalities), 1, axis)
        inputs = mix(k_mix, inputs, others, augment.mixup, axis, (modalities == other_modalities).all(axis=1))

    def loss_fn(params):
        model = nnx.merge(graphdef, params, rest)
        masks = drop_masks(k_drop, units, model.grid(*inputs['frames'].shape[2:4]), drop, axis)
        logits, out = model(inputs['frames'], inputs['log_mel'], valid, train=True, modalities=modalities, **masks)
        parts = loss_parts(model, logits, out, inputs['labels'], valid, loss, axis, masks.get('cell_mask'), modalities)
        total = total_loss(parts, loss)
        top1 = jnp.take_along_axis(batch['labels'], logits.argmax(-1, keepdims=True), axis=-1)
        parts = {'loss': total, **{f'loss_{name}': part for name, part in parts.items()}, 'top1': top1.mean()}
        sums = {'score_mean': score_sums(out, units)} if model.additive else {}
        return total, (parts, sums, nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param))))

    grads, (parts, sums, rest) = jax.grad(loss_fn, has_aux=True)(params)
    return rest, grads, parts, sums


def _accumulated(gradients, count: int, params, rest, batch: Batch, key: jax.Array):
    """Returns the results of `gradients` for `count` micro-batches together: the mean of all but the sums."""
    rows = batch['valid'].shape[0]
    if rows % count:
        raise ValueError(f'{rows} clips of a device do not split into {count} micro-batches; expected a multiple')
    micro_batches = jax.tree.map(lambda x: x.reshape(count, rows // count, *x.shape[1:]), batch)

    def add(carry, inputs):
        rest, total = carry
        number, micro_batch = inputs
        rest, grads, parts, sums = gradients(params, rest, micro_batch, jax.random.fold_in(key, number))
        return (rest, jax.tree.map(jnp.add, total, grads)), (parts, sums)

    zeros = jax.tree.map(jnp.zeros_like, params)
    (rest, total), (parts, sums) = jax.lax.scan(add, (rest, zeros), (jnp.arange(count), micro_batches))
    grads, parts = jax.tree.map(lambda x: x / count, total), jax.tree.map(lambda x: x.mean(0), parts)
    return rest, grads, parts, jax.tree.map(lambda x: x.sum(0), sums)


def _mean_over(axis: str, tree):
    """Averages a tree over devices by one reduction of one vector.

    A single vector ensures that there is only one reduction, however the compiler would combine many.
    """
    # Each device divides its own leaves before the reduction: after it, XLA would divide the whole vector once for each
    # leaf.
    shares = jax.tree.map(lambda x: x / jax.lax.axis_size(axis), tree)
    vector, unravel = jax.flatten_util.ravel_pytree(shares)
    return unravel(jax.lax.psum(vector, axis))


def has_pixels(batch: Batch) -> bool:
    """Returns whether the frames of a batch are pixels, which can be augmented and resized, and not features."""
    return batch['frames'].dtype == jnp.uint8


def has_log_mel(batch: Batch) -> bool:
    """Returns whether the audio of a batch is log-mel [b t f k] and not features, which have one frame a segment."""
    return batch['log_mel'].shape[2] > 1


def modalities_of(batch: Batch) -> jax.Array:
    """Returns which modalities (visual, audio) each clip has, bool [b m]; both if the batch does not state it."""
    return batch['modalities'] if 'modalities' in batch else jnp.ones((batch['valid'].shape[0], 2), bool)


def read_inputs(batch: Batch) -> dict[str, jax.Array]:
    """Returns the network's inputs frames and log_mel in float32, with pixels in 0..1."""
    frames, log_mel = (batch[name].astype(jnp.float32) for name in ('frames', 'log_mel'))
    return {'frames': frames / 255 if has_pixels(batch) else frames, 'log_mel': log_mel}


def loss_parts(
    model,
    logits,
    out,
    labels_bc,
    valid_bt,
    loss: Loss,
    axis: str | None,
    cell_mask_bts: jax.Array | None = None,
    modalities_bm: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Returns each part of the loss that has a weight, averaged over the clips in `labels_bc`.

    A model whose logit is not a sum of terms has only the main part. A part is 0 for a clip that lacks a modality which
    the part needs: the parts that compare picture and sound, of one clip or of two, need both modalities of each. The
    seconds in which a label is heard are all valid ones for a clip without sound.
    """
    modalities_bm = jnp.ones((labels_bc.shape[0], 2), bool) if modalities_bm is None else modalities_bm
    seen_b, heard_b = modalities_bm.astype(jnp.float32).T
    paired_b = seen_b * heard_b

    def classify(logits_bc, among_b=1.0):
        targets = labels_bc if loss.multi_label else labels_bc / labels_bc.sum(-1, keepdims=True)
        by_clip = losses.classification(
            logits_bc, targets, multi_label=loss.multi_label, smoothing=loss.label_smoothing
        )
        return (among_b * by_clip).mean()

    # Independent sigmoids need an absolute level (the bias); a softmax over classes does not (docs/log.md, 2026-11-23).
    logits_of = losses.unimodal_logits if loss.multi_label else losses.modality_logits
    parts = {'main': classify(logits)}
    if not model.additive:
        return parts
    if loss.audio:
        parts['audio'] = classify(logits_of(out, 1), heard_b)
    if loss.visual:
        parts['visual'] = classify(logits_of(out, 0), seen_b)
    heard_btc = losses.audio_saliency(out, valid_bt, multi_label=loss.multi_label)
    evidence_btsc = losses.cell_evidence(out) if loss.frame_mil or loss.attention or loss.mismatched_mil else None
    if loss.frame_mil:
        by_clip = losses.frame_mil(
            evidence_btsc,
            heard_btc,
            labels_bc,
            valid_bt,
            multi_label=loss.multi_label,
            sharpness=loss.frame_mil_sharpness,
        )
        parts['frame_mil'] = (seen_b * by_clip).mean()
    if loss.attention:
        by_clip = losses.attention(
            out['alpha'],
            evidence_btsc,
            heard_btc,
            labels_bc,
            sharpness=loss.frame_mil_sharpness,
            cell_mask_bts=cell_mask_bts,
        )
        parts['attention'] = (paired_b * by_clip).mean()
    shares = labels_bc / jnp.maximum(labels_bc.sum(-1, keepdims=True), 1)
    heard_bt = jnp.einsum('btc,bc->bt', heard_btc, shares)
    if loss.correspondence:
        # The match also trains the visual trunk. All audio shares these keys, for one gradient of the key layer.
        keys = model.space.keys(out['cells'])
        matched = losses.correspondence(model.match(keys, out['audio']), heard_bt, True)
        parts['correspondence'] = (paired_b * matched).mean()
    attended_clips = min(loss.negatives, ATTENDED_NEGATIVES)
    for shift in range(
        1, loss.negatives + 1 if loss.correspondence or loss.mismatched_uniform or loss.mismatched_mil else 0
    ):
        audio, other_labels, other_heard_bt, other_paired_b = losses.other_clips(
            (out['audio'], labels_bc, heard_bt, paired_b), shift, axis
        )
        differs_b = 1.0 - jnp.clip((other_labels * labels_bc).sum(-1), 0, 1)
        mismatched_b = differs_b * paired_b * other_paired_b
        if loss.correspondence:
            absent = losses.correspondence(model.match(keys, audio), other_heard_bt, False)
            parts['correspondence'] += (mismatched_b * absent).mean() / loss.negatives
        if shift > attended_clips or not (loss.mismatched_uniform or loss.mismatched_mil):
            continue
        attended = model.attend_and_score(out['keys'], out['values'], audio, valid_bt)
        if loss.mismatched_uniform:
            part = (mismatched_b * losses.kl_to_uniform(losses.modality_logits(attended, 0))).mean() / attended_clips
            parts['mismatched_uniform'] = parts.get('mismatched_uniform', 0.0) + part
        if loss.mismatched_mil:
            picture = logits_of(attended | {'bias': out['bias']}, 0)
            seen_bc = losses.frame_probabilities(
                evidence_btsc, heard_bt, multi_label=loss.multi_label, sharpness=loss.frame_mil_sharpness
            )
            part = losses.classification(picture, seen_bc, multi_label=loss.multi_label)
            parts['mismatched_mil'] = parts.get('mismatched_mil', 0.0) + (mismatched_b * part).mean() / attended_clips
    return parts


def total_loss(parts: dict[str, jax.Array], loss: Loss) -> jax.Array:
    """Returns the weighted sum of the parts of the loss."""
    return parts['main'] + sum(getattr(loss, name) * parts[name] for name in parts if name != 'main')


def score_sums(out: dict[str, jax.Array], units_bmt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of the scores of cells and of audio segments, per class [m c], and their numbers [m].

    Scores of cells are weighted by their attention weights; the null cell is left out. `units_bmt` is True for the
    valid segments of the modalities that the clip has.
    """
    units = units_bmt.astype(jnp.float32)
    sums = jnp.einsum('bmtc,bmt->mc', out['segment_scores'], units)
    counts = jnp.stack([jnp.sum(units[:, 0] * out['alpha'].sum(-1).mean(-1)), units[:, 1].sum()])
    return jax.lax.stop_gradient((sums, counts))


def mean_scores(sums_mc: jax.Array, counts_m: jax.Array, axis: str | None) -> jax.Array:
    """Returns the mean score of a cell and of an audio segment over all devices, per class: [m c]."""
    if axis:
        sums_mc, counts_m = jax.lax.psum((sums_mc, counts_m), axis)
    return sums_mc / jnp.maximum(counts_m, 1e-6)[:, None]


def drop_masks(
    key: jax.Array, units_bmt: jax.Array, grid: tuple[int, int], drop: Drop, axis: str | None = None
) -> dict[str, jax.Array]:
    """Samples the masks of the cells and units that training keeps: cell_mask [b t s] and unit_mask [b m t].

    A clip that would lose every unit keeps all of them.
    """
    masks = {}
    b, _, t = units_bmt.shape
    clips = ShardedRandom(b, axis)
    k_cell, k_segment, k_modality, k_which = jax.random.split(key, 4)
    if drop.cell:
        masks['cell_mask'] = clips.sample(jax.random.bernoulli, k_cell, 1 - drop.cell, shape=(t, grid[0] * grid[1]))
    if drop.segment or drop.modality:
        keep = clips.sample(jax.random.bernoulli, k_segment, 1 - drop.segment, shape=(2, t))
        lost = clips.sample(jax.random.bernoulli, k_modality, drop.modality, shape=(1,)) & (
            clips.sample(jax.random.bernoulli, k_which, 0.5, shape=(1,)) == jnp.arange(2)
        )
        keep &= ~lost[:, :, None]
        alive = (keep & units_bmt).any((1, 2), keepdims=True)
        masks['unit_mask'] = keep | ~alive
    return masks


def forward(
    graphdef: nnx.GraphDef, state: State, batch: Batch, *, frame_size: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Runs the model without augmentation or dropout: batch -> (logits [b c], out).

    The rows of a batch do not depend on each other.
    """
    model = nnx.merge(graphdef, state['params'], state['rest'])
    inputs = read_inputs(batch)
    if has_pixels(batch):
        inputs['frames'] = resize_frames(inputs['frames'], frame_size)
    return model(**inputs, valid=batch['valid'], modalities=modalities_of(batch), train=False)

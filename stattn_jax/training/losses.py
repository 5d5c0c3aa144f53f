"""Losses on the network's logits and on its parts, all in float32; the weights come from cfg.loss.

The purpose of each part (docs/log.md has the numbers):

`audio` and `visual` train each path alone, so that neither path relies on the other.
`frame_mil` trains the evidence of each cell without letting the audio choose the cell.
`correspondence` trains the null cell.
`mismatched_uniform` and `mismatched_mil` give targets under mismatched audio (audio of another clip).
`attention` trains the attention weights on the cells' own evidence.
"""

import jax
import jax.numpy as jnp
import optax

# Probabilities are raised to this power, so that many improbable segments do not outweigh the few in which a class is
# heard.
HEARD_POWER = 4


def classification(
    logits_bc: jax.Array, labels_bc: jax.Array, *, multi_label: bool, smoothing: float = 0.0
) -> jax.Array:
    """Computes the classification loss of each clip: [b].

    With `multi_label` it is the sum of binary cross-entropies against multi-hot labels; otherwise it is the
    cross-entropy against labels that sum to 1.
    """
    classes = labels_bc.shape[-1]
    if multi_label:
        targets = labels_bc * (1 - smoothing) + 0.5 * smoothing
        return optax.sigmoid_binary_cross_entropy(logits_bc, targets).sum(-1)
    targets = labels_bc * (1 - smoothing) + smoothing / classes
    return optax.softmax_cross_entropy(logits_bc, targets)


def modality_logits(out: dict[str, jax.Array], modality: int) -> jax.Array:
    """Returns one modality's contribution to each logit, the sum of its terms: [b c]."""
    return jnp.sum(out['beta'][:, modality] * out['segment_scores'][:, modality], axis=1)


def unimodal_logits(out: dict[str, jax.Array], modality: int) -> jax.Array:
    """Returns the exact logits of the same clip without the other modality: [b c]."""
    return out['bias'] + jnp.sum(out['beta_per_modality'][:, modality] * out['segment_scores'][:, modality], axis=1)


def kl_to_uniform(logits_bc: jax.Array) -> jax.Array:
    """Computes KL(uniform || softmax), which is 0 where all classes are equally likely: [b].

    It is applied to the visual contribution under mismatched audio.
    """
    return -jax.nn.log_softmax(logits_bc).mean(-1) - jnp.log(logits_bc.shape[-1])


def cell_evidence(out: dict[str, jax.Array]) -> jax.Array:
    """Returns each cell's evidence for each class, which does not depend on the audio: [b t s c].

    It is the sum over heads of values . head.
    """
    return jnp.einsum('btnse,cne->btsc', out['cell_values'], out['visual_head'], precision='highest')


def audio_saliency(out: dict[str, jax.Array], valid_bt: jax.Array, *, multi_label: bool) -> jax.Array:
    """Returns weights over segments for when each class is heard: [b t c], sum 1 over valid segments, no gradient.

    The weight is the class's probability from the audio of that segment alone, to the power HEARD_POWER, normalised
    over segments.

    The weights select the segments in which a label's object should be visible, so that a loss on the frames trains on
    a few of them instead of the whole clip. All segments in which the label is heard get similar weights. A softmax of
    scores over time would concentrate on one segment, the same in every epoch, and the network would soon memorise
    those few frames. The weights of a label are used for all classes alike, so that the selection of segments does not
    reveal the class.
    """
    logits_btc = out['bias'] + out['segment_scores'][:, 1]
    probability = jax.nn.sigmoid(logits_btc) if multi_label else jax.nn.softmax(logits_btc)
    weights = (probability + 1e-3) ** HEARD_POWER * valid_bt[..., None]
    return jax.lax.stop_gradient(weights / jnp.maximum(weights.sum(1, keepdims=True), 1e-30))


def frame_logits(evidence_btsc: jax.Array, sharpness: float) -> jax.Array:
    """Computes the log-mean-exp over cells at `sharpness` r, (1/r) log mean exp(r x): [b t c]."""
    return (jax.nn.logsumexp(evidence_btsc * sharpness, axis=2) - jnp.log(evidence_btsc.shape[2])) / sharpness


def frame_mil(
    evidence_btsc: jax.Array,
    heard_btc: jax.Array,
    labels_bc: jax.Array,
    valid_bt: jax.Array,
    *,
    multi_label: bool,
    sharpness: float,
) -> jax.Array:
    """Classifies single frames by the evidence of their cells, in the segments where the label is heard: [b].

    The evidence does not depend on the audio. A frame's logit is `frame_logits`. With `multi_label`, each class has its
    own binary loss; the classes that are absent from the clip are weighted equally over all valid segments.
    """
    frame_btc = frame_logits(evidence_btsc, sharpness)
    shares_bc = labels_bc / jnp.maximum(labels_bc.sum(-1, keepdims=True), 1)
    if not multi_label:
        return -jnp.einsum('btc,btc,bc->b', heard_btc, jax.nn.log_softmax(frame_btc), shares_bc)
    present = jnp.einsum('btc,btc,bc->b', heard_btc, jax.nn.softplus(-frame_btc), labels_bc)
    everywhere = valid_bt / jnp.maximum(valid_bt.sum(1, keepdims=True), 1)
    return present + jnp.einsum('bt,btc,bc->b', everywhere, jax.nn.softplus(frame_btc), 1 - labels_bc)


def attention(
    alpha_btns: jax.Array,
    evidence_btsc: jax.Array,
    heard_btc: jax.Array,
    labels_bc: jax.Array,
    *,
    sharpness: float,
    cell_mask_bts: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of the attention weights over cells against the cells' responsibility for the label: [b].

    It is averaged over the segments where the label is heard. The responsibility of a cell is its share in the
    log-mean-exp of `frame_mil`, softmax(sharpness * evidence), without gradient. The audio therefore learns to
    attend to the cells that the visual classifier, which does not depend on the audio, assigns to the label. All heads
    have the same target. `cell_mask_bts` is False for cells that training removed.
    """
    logits_btsc = sharpness * evidence_btsc
    if cell_mask_bts is not None:
        logits_btsc = jnp.where(cell_mask_bts[..., None], logits_btsc, -1e9)
    responsibility_btsc = jax.lax.stop_gradient(jax.nn.softmax(logits_btsc, axis=2))
    log_alpha = jnp.log(alpha_btns + 1e-9) - jnp.log(alpha_btns.sum(-1, keepdims=True) + 1e-9)
    shares_bc = labels_bc / jnp.maximum(labels_bc.sum(-1, keepdims=True), 1)
    return -jnp.einsum('btc,btsc,bts,bc->b', heard_btc, responsibility_btsc, log_alpha.mean(2), shares_bc)


def frame_probabilities(
    evidence_btsc: jax.Array, heard_bt: jax.Array, *, multi_label: bool, sharpness: float
) -> jax.Array:
    """Returns the probability of each class from the frames alone, averaged over segments: [b c], no gradient.

    It is computed with the classifier of single frames (`frame_logits`); `heard_bt` weights the segments.
    """
    logits_btc = frame_logits(evidence_btsc, sharpness)
    probability = jax.nn.sigmoid(logits_btc) if multi_label else jax.nn.softmax(logits_btc)
    return jax.lax.stop_gradient(jnp.einsum('btc,bt->bc', probability, heard_bt))


def correspondence(odds_bt: jax.Array, heard_bt: jax.Array, matched: bool) -> jax.Array:
    """Returns -log P(the audio has, or has not, a visible source), from the match's log-odds: [b].

    The loss is averaged over the segments in which the label is heard.
    """
    return jnp.sum(jax.nn.softplus(-odds_bt if matched else odds_bt) * heard_bt, axis=1)


def other_clips(arrays, shift: int, axis: str | None):
    """Replaces row i of the global batch by row i - shift, cyclically.

    Rows that other devices of `axis` hold are received from those devices.
    """

    def roll(x):
        if axis is None:
            return jnp.roll(x, shift, axis=0)
        hops, rows = divmod(shift, x.shape[0])
        last = _from_behind(x[x.shape[0] - rows :], hops + 1, axis) if rows else x[:0]
        return jnp.concatenate([last, _from_behind(x[: x.shape[0] - rows], hops, axis)])

    return jax.tree.map(roll, arrays)


def _from_behind(x, hops, axis):
    """Returns the array of the device that is `hops` places before this one, cyclically."""
    n = jax.lax.axis_size(axis)
    return jax.lax.ppermute(x, axis, [(i, (i + hops) % n) for i in range(n)]) if hops % n else x

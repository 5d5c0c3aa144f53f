"""Losses on the network's logits and on its parts, all in float32; the weights come from cfg.loss.

What each part is for (docs/log.md has the numbers): `audio` and `picture` train each path alone, so that neither can
hide behind the other; `cells` trains what a cell says without letting the sound choose the cell; `match` trains the
null cell; `swap` and `foreign` say what the picture's terms should be when the sound is another clip's; `attention`
trains the attention on the cells' own evidence. Read next: training/step.py.
"""

import jax
import jax.numpy as jnp
import optax

# Probabilities are raised to this power, so that many improbable seconds do not outweigh the few in which a class is
# heard.
HEARD_POWER = 4


def classification(
    logits_bc: jax.Array, labels_bc: jax.Array, *, multi_label: bool, smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy against labels summing to 1, or the sum of binary cross-entropies against multi-hot labels: [b]."""
    classes = labels_bc.shape[-1]
    if multi_label:
        targets = labels_bc * (1 - smoothing) + 0.5 * smoothing
        return optax.sigmoid_binary_cross_entropy(logits_bc, targets).sum(-1)
    targets = labels_bc * (1 - smoothing) + smoothing / classes
    return optax.softmax_cross_entropy(logits_bc, targets)


def path(out: dict[str, jax.Array], modality: int) -> jax.Array:
    """What one modality contributes to each logit, the sum of its terms: [b c]."""
    return jnp.sum(out['beta'][:, modality] * out['segment_scores'][:, modality], axis=1)


def alone(out: dict[str, jax.Array], modality: int) -> jax.Array:
    """The logits of the same clip without the other modality, exactly: [b c]."""
    return out['bias'] + jnp.sum(out['alone'][:, modality] * out['segment_scores'][:, modality], axis=1)


def undecided(logits_bc: jax.Array) -> jax.Array:
    """How far the classes are from equal, KL(uniform || softmax): [b]. For what a picture says to another clip's
    sound.
    """
    return -jax.nn.log_softmax(logits_bc).mean(-1) - jnp.log(logits_bc.shape[-1])


def cell_evidence(out: dict[str, jax.Array]) -> jax.Array:
    """What each cell says for each class, whatever the sound: sum over heads of values . head, [b t s c]."""
    return jnp.einsum('btnse,cne->btsc', out['cell_values'], out['visual_head'], precision='highest')


def heard(out: dict[str, jax.Array], valid_bt: jax.Array, *, multi_label: bool) -> jax.Array:
    """When each class is heard, by the sound of each segment alone: [b t c], sums to 1 over valid segments, no
    gradient.

    The class's probability from that second's sound to the power HEARD_POWER, normalised over segments.

    It says at which seconds a label's object should be in the picture, so that a loss on the picture asks few frames
    and not the whole clip. All the seconds in which the label is heard count alike: a softmax of scores over time would
    end on one of them, the same in every epoch, and few frames are soon learned by heart. The weights of a label serve
    all classes alike: which seconds are chosen cannot tell the class.
    """
    logits_btc = out['bias'] + out['segment_scores'][:, 1]
    probability = jax.nn.sigmoid(logits_btc) if multi_label else jax.nn.softmax(logits_btc)
    weights = (probability + 1e-3) ** HEARD_POWER * valid_bt[..., None]
    return jax.lax.stop_gradient(weights / jnp.maximum(weights.sum(1, keepdims=True), 1e-30))


def frame_logits(evidence_btsc: jax.Array, sharpness: float) -> jax.Array:
    """The log-mean-exp over cells at `sharpness` r, (1/r) log mean exp(r x): [b t c]."""
    return (jax.nn.logsumexp(evidence_btsc * sharpness, axis=2) - jnp.log(evidence_btsc.shape[2])) / sharpness


def cells(
    evidence_btsc: jax.Array,
    heard_btc: jax.Array,
    labels_bc: jax.Array,
    valid_bt: jax.Array,
    *,
    multi_label: bool,
    sharpness: float,
) -> jax.Array:
    """Classification of single frames by their cells' evidence, whatever the sound, at the seconds when the label is
    heard: [b].

    A frame's logit is `frame_logits`. A frame with several labels, or none, is classified per class, the absent ones at
    all valid seconds.
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
    """Cross-entropy of the attention, among cells, against the cells' responsibility for the label where it is heard:
    [b].

    The responsibility of a cell is its share in the log-mean-exp of `cells`, softmax(sharpness * evidence) over cells,
    without gradient: the sound learns to find the cells that the picture's classifier, which no sound steers, takes for
    the label. All heads learn the same. `cell_mask_bts` is False for cells that training removed.
    """
    logits_btsc = sharpness * evidence_btsc
    if cell_mask_bts is not None:
        logits_btsc = jnp.where(cell_mask_bts[..., None], logits_btsc, -1e9)
    responsibility_btsc = jax.lax.stop_gradient(jax.nn.softmax(logits_btsc, axis=2))
    log_alpha = jnp.log(alpha_btns + 1e-9) - jnp.log(alpha_btns.sum(-1, keepdims=True) + 1e-9)
    shares_bc = labels_bc / jnp.maximum(labels_bc.sum(-1, keepdims=True), 1)
    return -jnp.einsum('btc,btsc,bts,bc->b', heard_btc, responsibility_btsc, log_alpha.mean(2), shares_bc)


def seen(evidence_btsc: jax.Array, heard_bt: jax.Array, *, multi_label: bool, sharpness: float) -> jax.Array:
    """The probability of each class from the frames alone, by their cells' classifier, over the seconds `heard`: [b
    c], no gradient.
    """
    logits_btc = frame_logits(evidence_btsc, sharpness)
    probability = jax.nn.sigmoid(logits_btc) if multi_label else jax.nn.softmax(logits_btc)
    return jax.lax.stop_gradient(jnp.einsum('btc,bt->bc', probability, heard_bt))


def match(odds_bt: jax.Array, heard_bt: jax.Array, matched: bool) -> jax.Array:
    """-log P(the sound has, or has not, a visible source) from the match's log-odds, over the seconds when the
    label is heard: [b].
    """
    return jnp.sum(jax.nn.softplus(-odds_bt if matched else odds_bt) * heard_bt, axis=1)


def other_clips(arrays, shift: int, axis: str | None):
    """Row i becomes row i - shift of the global batch, cyclically; the rows of other devices of `axis` come from
    neighbours.
    """

    def roll(x):
        if axis is None:
            return jnp.roll(x, shift, axis=0)
        hops, rows = divmod(shift, x.shape[0])
        last = _from_behind(x[x.shape[0] - rows :], hops + 1, axis) if rows else x[:0]
        return jnp.concatenate([last, _from_behind(x[: x.shape[0] - rows], hops, axis)])

    return jax.tree.map(roll, arrays)


def _from_behind(x, hops, axis):
    """What the device `hops` before this one holds, cyclically."""
    n = jax.lax.axis_size(axis)
    return jax.lax.ppermute(x, axis, [(i, (i + hops) % n) for i in range(n)]) if hops % n else x

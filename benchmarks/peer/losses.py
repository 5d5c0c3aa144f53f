"""The parts of the loss in PyTorch; stattn_jax/training/losses.py documents the purpose of each."""

import math

import torch
from torch.nn import functional

from benchmarks.peer.network import SpaceTimeAttention
from stattn_jax.training.losses import HEARD_POWER
from stattn_jax.training.step import Loss


def parts(
    network: SpaceTimeAttention,
    logits: torch.Tensor,
    out: dict[str, torch.Tensor],
    labels: torch.Tensor,
    valid: torch.Tensor,
    loss: Loss,
) -> dict[str, torch.Tensor]:
    """Returns each part that has a weight, averaged over the clips; labels multi-hot [b c], valid bool [b t]."""
    logits_of = unimodal_logits if loss.multi_label else modality_logits
    found = {'main': classify(logits, labels, loss)}
    if loss.audio:
        found['audio'] = classify(logits_of(network, out, 1), labels, loss)
    if loss.visual:
        found['visual'] = classify(logits_of(network, out, 0), labels, loss)
    heard_btc = audio_saliency(network, out, valid, loss)
    shares = labels / labels.sum(-1, keepdim=True).clamp(min=1)
    if loss.frame_mil:
        found['frame_mil'] = frame_mil(
            out['values'] @ network.visual_head, heard_btc, labels, shares, valid, loss
        ).mean()
    heard_bt = torch.einsum('btc,bc->bt', heard_btc, shares)
    if loss.correspondence or loss.mismatched_uniform:
        found |= mismatched_parts(network, out, labels, heard_bt, valid, loss)
    return found


def mismatched_parts(
    network: SpaceTimeAttention,
    out: dict[str, torch.Tensor],
    labels: torch.Tensor,
    heard_bt: torch.Tensor,
    valid: torch.Tensor,
    loss: Loss,
) -> dict[str, torch.Tensor]:
    """Returns `correspondence` and `mismatched_uniform`: frames with their own and with mismatched audio.

    The mismatched audio is that of `negatives` other clips.
    """
    found = {}
    if loss.correspondence:
        keys = network.space.keys(out['cells']) if network.stop_gradient_evidence else out['keys']
        found['correspondence'] = (functional.softplus(-network.match(keys, out['audio'])) * heard_bt).sum(1).mean()
    for shift in range(1, loss.negatives + 1):
        audio, other, seconds = (x.roll(shift, 0) for x in (out['audio'], labels, heard_bt))
        differs = (1 - (other * labels).sum(-1).clamp(0, 1)) / loss.negatives
        if loss.correspondence:
            odds = network.match(keys, audio)
            found['correspondence'] = (
                found['correspondence'] + (differs * (functional.softplus(odds) * seconds).sum(1)).mean()
            )
        if loss.mismatched_uniform:
            picture = modality_logits(network, network.attend_and_score(out['keys'], out['values'], audio, valid), 0)
            found['mismatched_uniform'] = (
                found.get('mismatched_uniform', 0.0) + (differs * kl_to_uniform(picture)).mean()
            )
    return found


def classify(logits: torch.Tensor, labels: torch.Tensor, loss: Loss) -> torch.Tensor:
    """Cross-entropy, or the sum of binary cross-entropies where each class has an independent sigmoid."""
    if loss.multi_label:
        targets = labels * (1 - loss.label_smoothing) + 0.5 * loss.label_smoothing
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction='none').sum(-1).mean()
    return functional.cross_entropy(logits, labels / labels.sum(-1, keepdim=True), label_smoothing=loss.label_smoothing)


def modality_logits(network: SpaceTimeAttention, out: dict[str, torch.Tensor], modality: int) -> torch.Tensor:
    """Returns the contribution of one modality to each logit: [b c]."""
    return (out['beta'][:, modality] * out['segment_scores'][:, modality]).sum(1)


def unimodal_logits(network: SpaceTimeAttention, out: dict[str, torch.Tensor], modality: int) -> torch.Tensor:
    """Returns the logits without the other modality: [b c]."""
    weights = torch.softmax(out['time_logits'][:, modality], dim=1)
    return network.bias + (weights * out['segment_scores'][:, modality]).sum(1)


def audio_saliency(
    network: SpaceTimeAttention, out: dict[str, torch.Tensor], valid: torch.Tensor, loss: Loss
) -> torch.Tensor:
    """Returns when each class is heard, according to the audio alone, as weights without gradient: [b t c]."""
    logits = (network.bias + out['segment_scores'][:, 1]).detach()
    probability = torch.sigmoid(logits) if loss.multi_label else torch.softmax(logits, dim=-1)
    weights = (probability + 1e-3) ** HEARD_POWER * valid[..., None]
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-30)


def frame_mil(
    evidence: torch.Tensor,
    heard_btc: torch.Tensor,
    labels: torch.Tensor,
    shares: torch.Tensor,
    valid: torch.Tensor,
    loss: Loss,
) -> torch.Tensor:
    """Returns the loss of classifying single frames by their cells' evidence [b t s c]: [b].

    The frames are weighted by the times at which the label is heard.
    """
    sharpness = loss.frame_mil_sharpness
    frame = (torch.logsumexp(evidence * sharpness, dim=2) - math.log(evidence.shape[2])) / sharpness
    if not loss.multi_label:
        return -torch.einsum('btc,btc,bc->b', heard_btc, functional.log_softmax(frame, dim=-1), shares)
    present = torch.einsum('btc,btc,bc->b', heard_btc, functional.softplus(-frame), labels)
    everywhere = valid / valid.sum(1, keepdim=True).clamp(min=1)
    return present + torch.einsum('bt,btc,bc->b', everywhere, functional.softplus(frame), 1 - labels)


def kl_to_uniform(logits: torch.Tensor) -> torch.Tensor:
    """KL(uniform || softmax) over the classes: [b]."""
    return -functional.log_softmax(logits, dim=-1).mean(-1) - math.log(logits.shape[-1])


def mean_scores(out: dict[str, torch.Tensor], valid: torch.Tensor) -> torch.Tensor:
    """Returns the batch's mean score of a cell and of a sound segment, per class, without gradient: [m c]."""
    there = valid.float()
    sums = torch.einsum('bmtc,bt->mc', out['segment_scores'].detach(), there)
    counts = torch.stack([(there * out['alpha'].detach().sum(-1).mean(-1)).sum(), there.sum()])
    return sums / counts.clamp(min=1e-6)[:, None]

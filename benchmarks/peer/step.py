"""The training step and the forward pass in PyTorch, on uint8 frames.

They have the same augmentation, loss parts, clipping, optimiser and running scores as stattn_jax/training/step.py. The
norms of parameters and updates, which the JAX step reports besides that of the gradients, are left out.
"""

import math
from collections.abc import Callable

import ml_collections
import numpy as np
import torch
from torch import nn

from benchmarks.peer import augment, losses
from benchmarks.peer.network import SpaceTimeAttention
from stattn_jax.training.augment import Augment
from stattn_jax.training.step import Loss

Batch = dict[str, torch.Tensor]


def place(batch: dict[str, np.ndarray], device: str) -> Batch:
    """Places a batch of data/pipeline.py, or a random one, on the device."""
    return {name: torch.from_numpy(x).to(device) for name, x in batch.items()}


class Trainer:
    """`trainer(batch) -> {'loss': scalar, ...}` makes one update of the network; scalars stay on the device."""

    def __init__(self, network: SpaceTimeAttention, config: ml_collections.ConfigDict, *, compiled: bool = False):
        self.network = network.train()
        self.loss, self.augment = Loss(**config.loss), Augment(**config.augment)
        self.frame_size, self.clip_norm = config.model.frame_size, config.optim.clip_norm
        self.optimiser = make_optimiser(network, config)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, make_schedule(config))
        self.score_mean = torch.zeros(2, len(network.bias), device=network.bias.device)
        self.steps = 0
        self._objective = torch.compile(self.objective, dynamic=False) if compiled else self.objective

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Makes one update; returns the loss, its parts as loss_NAME, top1 and l2_grads (before clipping)."""
        total, metrics, scores = self._objective(batch)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        self.score_mean.lerp_(scores, max(0.01, 1 / (self.steps + 1)))
        self.steps += 1
        return metrics | {'l2_grads': norm}

    def objective(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Returns the loss, its metrics, and the batch's mean scores [m c]."""
        frames = augment.frames(batch['frames'].float() / 255, self.frame_size, self.augment)
        log_mel = augment.mel(batch['log_mel'].float(), self.augment)
        labels, valid = batch['labels'], batch['valid']
        logits, out = self.network(frames, log_mel, valid)
        parts = losses.parts(self.network, logits, out, labels, valid, self.loss)
        total = parts['main'] + sum(getattr(self.loss, name) * part for name, part in parts.items() if name != 'main')
        top1 = labels.gather(-1, logits.argmax(-1, keepdim=True)).mean()
        metrics = {'loss': total, **{f'loss_{name}': part for name, part in parts.items()}, 'top1': top1}
        return total, {name: x.detach() for name, x in metrics.items()}, losses.mean_scores(out, valid)


def make_forward(network: SpaceTimeAttention, config: ml_collections.ConfigDict, *, compiled: bool = False) -> Callable:
    """Returns `forward(batch) -> logits [b c]` of the network in evaluation mode, without augmentation."""
    network.eval()

    def logits(batch):
        frames = augment.resize(batch['frames'].float() / 255, config.model.frame_size)
        return network(frames, batch['log_mel'].float(), batch['valid'])[0]

    logits = torch.compile(logits, dynamic=False) if compiled else logits

    @torch.inference_mode()
    def forward(batch: Batch) -> torch.Tensor:
        return logits(batch)

    return forward


def make_optimiser(network: nn.Module, config: ml_collections.ConfigDict) -> torch.optim.AdamW:
    """Returns fused AdamW; only parameters of two or more axes decay."""
    parameters = list(network.parameters())
    groups = [
        {'params': [x for x in parameters if x.ndim > 1], 'weight_decay': config.optim.weight_decay},
        {'params': [x for x in parameters if x.ndim <= 1], 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.optim.lr, fused=True)


def make_schedule(config: ml_collections.ConfigDict) -> Callable[[int], float]:
    """Returns the factor of config.optim.lr at a step: linear from 0 over the warm-up, then cosine to 0."""
    warmup = config.optim.warmup_steps
    total = max(config.train.steps, warmup + 1)

    def share(step: int) -> float:
        if step < warmup:
            return step / warmup
        return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1)))

    return share

"""STAN in PyTorch: the network of stattn_jax/models/stan.py, with the same parameter names.

Trunks run under autocast where their dtype is bfloat16, attention and head in float32. An optimisation that XLA finds
by itself is written out: keys are projected once for all sounds that are matched with them.
"""

import math

import ml_collections
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peer import trunks
from stattn_jax.models.trunks.trunk import MEL_MEAN, MEL_STD, RGB_MEAN, RGB_STD

# Config fields of features that the peer lacks, with the value that turns each feature off.
PLAIN = {
    'model.kind': 'stan',
    'model.uniform_space': False,
    'model.uniform_time': False,
    'model.guided': True,
    'model.null_cell': True,
    'model.class_time': True,
    'model.visual_frozen': False,
    'model.audio_frozen': False,
    'loss.attention': 0.0,
    'loss.mismatched_mil': 0.0,
    'augment.mixup': 0.0,
    'augment.mel_shift': 0,
    'augment.mel_gain': 0.0,
    'augment.mel_background': 0.0,
    'augment.feature_dropout': 0.0,
    'drop.cell': 0.0,
    'drop.segment': 0.0,
    'drop.modality': 0.0,
    'optim.name': 'adamw',
    'optim.visual_lr': 1.0,
    'optim.audio_lr': 1.0,
    'optim.layer_decay': 1.0,
}


class SpatialAttention(nn.Module):
    """Softmax over the cells and a null cell of the sound's cosine similarity with each."""

    def __init__(self, visual: int, audio: int, *, heads: int, head_width: int):
        super().__init__()
        self.shape = (heads, head_width)
        self.query = nn.Linear(audio, heads * head_width)
        self.key = nn.Linear(visual, heads * head_width)
        self.null_key = nn.Parameter(torch.randn(heads, head_width))
        self.log_scale = nn.Parameter(torch.full((heads,), math.log(8.0)))

    def keys(self, cells: torch.Tensor) -> torch.Tensor:
        """Returns the unit keys [b t s n e] of cells [b t s d]."""
        return unit(self.key(cells).unflatten(-1, self.shape))

    def forward(self, keys: torch.Tensor, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns alpha [b t n s] and null [b t n], which sum to 1, for sounds [b t d]."""
        q = unit(self.query(audio).unflatten(-1, self.shape))
        null = torch.einsum('btne,ne->btn', q, unit(self.null_key))
        logits = torch.cat([torch.einsum('btne,btsne->btns', q, keys), null[..., None]], dim=-1)
        weights = torch.softmax(logits * self.log_scale.exp()[:, None], dim=-1)
        return weights[..., :-1], weights[..., -1]


class TemporalAttention(nn.Module):
    """Computes the logits over (modality, segment) of every class, from the segment's picture and sound."""

    def __init__(self, visual: int, audio: int, classes: int, *, hidden: int):
        super().__init__()
        self.classes = classes
        self.norm = nn.LayerNorm(visual + audio, eps=1e-6)
        self.hidden = nn.Linear(visual + audio, hidden)
        self.score = nn.Linear(hidden, 2 * classes)
        self.match_weight = nn.Parameter(torch.full((2,), 0.5))

    def forward(
        self, picture: torch.Tensor, audio: torch.Tensor, match: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """[b t d], [b t d] and log-odds [b t] -> [b m t c], -inf where `valid` [b t] is False."""
        x = self.norm(torch.cat([picture, audio], dim=-1))
        logits = self.score(functional.gelu(self.hidden(x), approximate='tanh'))
        logits = logits.unflatten(-1, (2, self.classes)).transpose(1, 2)
        logits = logits + self.match_weight[:, None, None] * match[:, None, :, None]
        return logits.masked_fill(~valid[:, None, :, None], -torch.inf)


class SpaceTimeAttention(nn.Module):
    """Maps frames and log-mel of a clip's segments to class logits, and returns the attention that the losses need."""

    def __init__(
        self,
        classes: int,
        *,
        visual: str,
        audio: str,
        width: int,
        heads: int,
        hidden: int,
        stop_gradient_evidence: bool,
        dtype: str,
        channels_last: bool,
    ):
        super().__init__()
        self.heads, self.stop_gradient_evidence = heads, stop_gradient_evidence
        self.dtype = getattr(torch, dtype)
        self.visual = trunks.make_visual(visual)
        self.audio = trunks.make_audio(audio)
        self.value = nn.Linear(self.visual.width, width)
        self.audio_out = nn.Linear(self.audio.width, width)
        self.space = SpatialAttention(self.visual.width, width, heads=heads, head_width=width // heads)
        self.time = TemporalAttention(width, width, classes, hidden=hidden)
        self.visual_head = nn.Parameter(torch.randn(width, classes) / width**0.5)
        self.audio_head = nn.Parameter(torch.randn(width, classes) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer('rgb_mean', torch.tensor(RGB_MEAN), persistent=False)
        self.register_buffer('rgb_std', torch.tensor(RGB_STD), persistent=False)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.layout)

    def forward(
        self, frames: torch.Tensor, log_mel: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """frames [b t H W 3] in 0..1, log_mel [b t f k], valid bool [b t] -> logits [b c], out."""
        b, t = valid.shape
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            x = ((frames - self.rgb_mean) / self.rgb_std).flatten(0, 1).permute(0, 3, 1, 2)
            cells = self.visual(x.to(self.dtype, memory_format=self.layout))
            x = ((log_mel - MEL_MEAN[0]) / MEL_STD[0]).flatten(0, 1)[:, None]
            heard = self.audio(x.to(self.dtype, memory_format=self.layout))
        cells = cells.float().permute(0, 2, 3, 1).reshape(b, t, -1, self.visual.width)
        return self.forward_heads(cells, self.audio_out(heard.float()).unflatten(0, (b, t)), valid)

    def forward_heads(
        self, cells: torch.Tensor, audio: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Returns logits [b c] and out from cells [b t s d'] and sound [b t d]."""
        values = self.value(cells)
        keys = self.space.keys(cells.detach() if self.stop_gradient_evidence else cells)
        out = {'cells': cells, 'audio': audio, 'values': values, 'keys': keys}
        out |= self.attend_and_score(keys, values, audio, valid)
        return self.bias + (out['beta'] * out['segment_scores']).sum((1, 2)), out

    def attend_and_score(
        self, keys: torch.Tensor, values: torch.Tensor, audio: torch.Tensor, valid: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Attends in space and time, with the sound of the same clips or of others.

        Returns alpha, time_logits, beta and segment_scores.
        """
        head = self.visual_head
        if self.stop_gradient_evidence:
            head, values = head.detach(), values.detach()
        alpha, null = self.space(keys, audio)
        pooled = torch.einsum('btns,btsne->btne', alpha, values.unflatten(-1, (self.heads, -1))).flatten(2)
        match = log_odds(alpha, null)
        logits = self.time(pooled, audio, match.detach() if self.stop_gradient_evidence else match, valid)
        beta = torch.softmax(logits.flatten(1, 2), dim=1).view_as(logits)
        scores = torch.stack([pooled @ head, audio @ self.audio_head], dim=1)
        return {'alpha': alpha, 'time_logits': logits, 'beta': beta, 'segment_scores': scores}

    def match(self, keys: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """Log-odds that something in the segment's picture makes its sound: [b t], averaged over heads."""
        return log_odds(*self.space(keys, audio))


def log_odds(alpha: torch.Tensor, null: torch.Tensor) -> torch.Tensor:
    """Log-odds of the weight of all cells against the null cell's, averaged over heads: [b t]."""
    return (alpha.sum(-1).clamp(min=1e-6).log() - null.clamp(min=1e-6).log()).mean(-1)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Returns x [... e] scaled to length 1."""
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def build(config: ml_collections.ConfigDict, classes: int, *, channels_last: bool = True) -> SpaceTimeAttention:
    """Builds the network of cfg.model, whose weights weights.copy sets. Raises ValueError as `check` does."""
    check(config)
    names = ('visual', 'audio', 'width', 'heads', 'hidden', 'stop_gradient_evidence', 'dtype')
    return SpaceTimeAttention(classes, **{name: config.model[name] for name in names}, channels_last=channels_last)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a config that uses a feature that the peer lacks."""
    for field, plain in PLAIN.items():
        group, name = field.split('.')
        if (given := config[group][name]) != plain:
            raise ValueError(
                f'config.{field} is {given!r}, which the peer does not have; expected {plain!r}; give '
                f'--config.{field}={plain}'
            )
    for name in ('visual', 'audio'):
        if config.model[name] == 'precomputed':
            raise ValueError(
                f'config.model.{name} is precomputed, which the peer does not have; expected resnet18 or tiny'
            )

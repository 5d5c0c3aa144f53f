"""The augmentations of stattn_jax/training/augment.py in PyTorch, on the device, with PyTorch's random numbers."""

import torch

from stattn_jax.training.augment import Augment


def frames(x: torch.Tensor, size: int, aug: Augment) -> torch.Tensor:
    """Applies one random crop, flip and colour shift per clip: [b t H W 3] in 0..1 -> [b t size size 3]."""
    b, _, height, width, _ = x.shape

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, device=x.device)

    if aug.crop < 1 or aug.flip or size != height:
        scale = uniform(aug.crop, 1.0, b)
        rows = resample(uniform(0, 1, b) * (1 - scale), scale, height, size)
        columns = resample(uniform(0, 1, b) * (1 - scale), scale, width, size)
        mirror = uniform(0, 1, b) < aug.flip
        columns = torch.where(mirror[:, None, None], columns.flip(1), columns)
        x = torch.einsum('btywr,bxw->btyxr', torch.einsum('byh,bthwr->btywr', rows, x), columns)
    if aug.colour:
        gain = uniform(1 - aug.colour, 1 + aug.colour, b, 1, 1, 1, 1)
        shift = uniform(-aug.colour / 3, aug.colour / 3, b, 1, 1, 1, 3)
        x = (x * gain + shift).clamp(0, 1)
    return x


def resize(x: torch.Tensor, size: int) -> torch.Tensor:
    """Resizes whole frames to `size`: [b t H W 3] -> [b t size size 3]."""
    if x.shape[2] == size:
        return x
    none, all_ = torch.zeros(1, device=x.device), torch.ones(1, device=x.device)
    rows, columns = (resample(none, all_, length, size)[0] for length in x.shape[2:4])
    return torch.einsum('btywr,xw->btyxr', torch.einsum('yh,bthwr->btywr', rows, x), columns)


def mel(x: torch.Tensor, aug: Augment) -> torch.Tensor:
    """Applies one band mask and one frame mask per segment of x [b t f k], filled with the clip's mean."""
    b, t, f, k = x.shape
    keep = torch.ones(b, t, f, k, dtype=torch.bool, device=x.device)
    if aug.mel_bands:
        keep = keep & _stripe((b, t), k, aug.mel_bands, x.device)[:, :, None, :]
    if aug.mel_frames:
        keep = keep & _stripe((b, t), f, aug.mel_frames, x.device)[:, :, :, None]
    return torch.where(keep, x, x.mean((1, 2, 3), keepdim=True))


def resample(low: torch.Tensor, scale: torch.Tensor, source: int, target: int) -> torch.Tensor:
    """Anti-aliased linear resampling of source pixels in low..low+scale (0..1) as a matrix [b target source]."""
    steps = (torch.arange(target, device=low.device) + 0.5) / target
    centre = (low[:, None] + steps * scale[:, None]) * source - 0.5
    reach = (scale * source / target).clamp(min=1.0)[:, None, None]
    weights = (1 - (centre[..., None] - torch.arange(source, device=low.device)).abs() / reach).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def _stripe(shape, size, widest, device):
    """Returns a mask [*shape size] that is False on a stripe of random width 0..widest at a random place."""
    width = torch.randint(0, widest + 1, shape, device=device)
    first = (torch.rand(shape, device=device) * (size - width + 1)).floor().long()
    at = torch.arange(size, device=device)
    return (at < first[..., None]) | (at >= (first + width)[..., None])

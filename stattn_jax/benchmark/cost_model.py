"""Least times of a training step on TPUs and GPUs, from its compiled program and published figures of the chips.

A floor is the time that one resource needs if it is used without a gap: products at the peak of the matrix units, bytes
at the bandwidth of the memory, collectives at the bandwidth of the links. No floor is a prediction. The step reduces
its gradients once, after the last of them is known (docs/design.md), so the links work while the rest waits.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from stattn_jax.benchmark import hlo
from stattn_jax.runtime import perf


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip or of GPU, by published figures.

    kind: JAX's device_kind, the key of perf.PEAKS.
    hbm_bytes: bytes of memory that a program may use.
    link: bytes/s of one link to a neighbour, in one direction.
    axes: axes of the interconnect; 1 is a switch, over which all GPUs of a host are neighbours.
    ring: sides that are multiples of this are rings. On v4 and v5p all sides of a slice must be.
    cores: hardware threads (vCPUs) of a host with so many chips.
    """

    kind: str
    hbm_bytes: int
    link: float
    axes: int
    ring: int
    cores: dict[int, int]


RESOURCES = ('compute', 'memory', 'interconnect')
# Memory: as libtpu 0.0.42 gives it to a program; published are 16, 32, 32 and 95 GB. Links and hosts:
# docs.cloud.google.com/tpu/docs/v5e, /v6e, /v5p, /v4, read 2026-11-27. A link has the published
# bidirectional bandwidth per chip (v5e 400, v6e 800, v5p 1200 GB/s) over its 4 or 6 ports and 2 directions; that of v4
# is in arXiv 2304.01433, table 4. Rings: v5e and v6e close a side of 16 chips, v4 and v5p cubes of 4 x 4 x 4. The
# threads of hosts of v6e, v4 and GPUs were not looked up again.
CHIPS = {
    'v5e': Chip('TPU v5 lite', int(15.75 * 2**30), 50e9, axes=2, ring=16, cores={1: 24, 4: 112, 8: 224}),
    'v6e': Chip('TPU v6 lite', int(31.25 * 2**30), 100e9, axes=2, ring=16, cores={1: 44, 4: 180, 8: 180}),
    'v4': Chip('TPU v4', int(30.75 * 2**30), 50e9, axes=3, ring=4, cores={4: 240}),
    'v5p': Chip('TPU v5', int(95.74 * 2**30), 100e9, axes=3, ring=4, cores={4: 208}),
    # Memory: gpu_target.py. Links: NVIDIA's data sheets, NVLink of 600 and 900 GB/s in both directions together. Hosts:
    # a2-ultragpu and a3-highgpu of Google Cloud.
    'a100': Chip('NVIDIA A100-SXM4-80GB', 85100068864, 300e9, axes=1, ring=16, cores={1: 12, 2: 24, 4: 48, 8: 96}),
    'h100': Chip('NVIDIA H100 80GB HBM3', 84942979072, 450e9, axes=1, ring=16, cores={1: 26, 2: 52, 4: 104, 8: 208}),
}
# Chips of a host in slices of more than one host.
HOST = 4


@dataclasses.dataclass(frozen=True)
class Slice:
    """Connected chips: the name of their kind, a key of CHIPS, and the number of chips along each axis."""

    chip: str
    sides: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.sides)

    @property
    def host_chips(self) -> int:
        """Returns the number of chips that share a host."""
        return self.chips if self.chips in CHIPS[self.chip].cores else HOST

    @property
    def cores(self) -> float:
        """Returns the hardware threads of the hosts per chip."""
        return CHIPS[self.chip].cores[self.host_chips] / self.host_chips

    @property
    def links(self) -> int:
        """Returns the number of neighbours of a chip that has the fewest."""
        chip = CHIPS[self.chip]
        rings = [side > 2 and side % chip.ring == 0 for side in self.sides]
        if chip.axes == 3:
            rings = [all(rings)] * len(rings)
        return sum(1 + ring for side, ring in zip(self.sides, rings) if side > 1)


def grown(chip: str, chips: int) -> Slice:
    """Returns the usual slice of so many chips, a power of two: the shape with the most equal sides."""
    sides = [1] * CHIPS[chip].axes
    while math.prod(sides) < chips:
        sides[sides.index(min(sides))] *= 2
    return Slice(chip, tuple(sorted(sides, key=lambda side: (side == 1, side))))


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of one chip in a step: products (FLOPs), bytes moved to and from its memory, and its collectives."""

    products: float
    moved_bytes: float
    collectives: tuple[hlo.Collective, ...] = ()


def floors(work: Work, where: Slice) -> dict[str, float]:
    """Returns the least seconds of a step by resource: compute, memory, interconnect."""
    flops, bandwidth = perf.PEAKS[CHIPS[where.chip].kind]
    return {
        'compute': work.products / flops,
        'memory': work.moved_bytes / bandwidth,
        'interconnect': interconnect_seconds(work.collectives, where),
    }


def step_seconds(floor: dict[str, float]) -> float:
    """Returns the least seconds of a step whose collectives follow the rest."""
    return max(floor['compute'], floor['memory']) + floor['interconnect']


def binding(floor: dict[str, float]) -> str:
    """Returns the resource whose floor is highest."""
    return max(floor, key=floor.__getitem__)


def interconnect_seconds(collectives: Iterable[hlo.Collective], where: Slice) -> float:
    """Returns the least seconds in which a chip's links pass on the bytes of its collectives.

    A reduction over n chips sends 2 (n - 1) / n of its bytes from each chip (Patarasuk and Yuan 2009), in equal shares
    over all links of the chip that has the fewest. Latency is left out.
    """
    if where.links == 0:
        return 0.0
    sent = sum(_sent(collective, where.chips) for collective in collectives)
    return sent / (where.links * CHIPS[where.chip].link)


def _sent(collective: hlo.Collective, chips: int) -> float:
    n = collective.devices or chips
    factors = {
        'all-reduce': 2 * (n - 1) / n,
        'all-gather': (n - 1) / n,
        'reduce-scatter': n - 1,
        'all-to-all': (n - 1) / n,
        'collective-permute': 1,
    }
    return factors[collective.kind] * collective.bytes


def over(work: Work, where: Slice) -> Work:
    """Returns the work of a chip when its collectives run over all chips of a slice, with the same clips per chip."""
    return dataclasses.replace(
        work, collectives=tuple(collective._replace(devices=where.chips) for collective in work.collectives)
    )


def plan(work: Work, chip: str, *, clips: int, clips_per_core: float, most: int = 256) -> list[dict[str, Any]]:
    """Returns a row of JSON types for 1, 4, 8, 16, ... `most` chips that share a growing batch of `clips` per chip.

    The rows of GPUs end with those of one host.

    clips_per_core: the clips that one core reads and decodes in a second.
    balance_clips: the clips per chip at which reducing the gradients takes as long as all other work; with fewer the
      interconnect binds. It assumes that the other work is proportional to the clips.
    cores_needed: cores per chip that read as many clips as the chip takes at its floor; with fewer the input binds.
    """
    rows = []
    most = min(most, max(CHIPS[chip].cores)) if CHIPS[chip].axes == 1 else most
    for chips in [1] + [2**i for i in range(2, most.bit_length()) if 2**i <= most]:
        where = grown(chip, chips)
        floor = floors(over(work, where), where)
        seconds = step_seconds(floor)
        needed = clips / seconds / clips_per_core
        rows.append({
            'chips': chips,
            'sides': list(where.sides),
            'global_batch': clips * chips,
            **{f'{name}_seconds': value for name, value in floor.items()},
            'step_seconds': seconds,
            'clips_per_second': clips * chips / seconds,
            'balance_clips': clips * floor['interconnect'] / max(floor['compute'], floor['memory']),
            'cores_needed': needed,
            'cores': where.cores,
            'binding': 'input' if needed > where.cores else binding(floor),
        })  # fmt: skip
    return rows


@dataclasses.dataclass
class Search:
    """Finds the largest number for which something fits, by doubling and then by bisection.

    candidate: the number to try next, None at the end; then `fitting` is the answer, exact to `precision` of itself.
    fitting: the largest number that was found to fit, at first 0.
    """

    candidate: int | None
    precision: float = 0.05
    fitting: int = 0
    refused: int | None = None

    def record(self, fits: bool) -> None:
        """Takes in whether the candidate fits, and sets the next one."""
        if fits:
            self.fitting = self.candidate
        else:
            self.refused = self.candidate
        if self.refused is None:
            self.candidate = 2 * self.fitting
        elif self.refused - self.fitting <= max(1, self.precision * self.fitting):
            self.candidate = None
        else:
            self.candidate = (self.fitting + self.refused) // 2

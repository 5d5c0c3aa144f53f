"""Tests the floors, the plan and the search of the cost model against numbers computed by hand."""

import pytest

from stattn_jax.benchmark import cost_model
from stattn_jax.benchmark.cost_model import Slice
from stattn_jax.benchmark.hlo import Collective


@pytest.mark.parametrize(
    'chip, sides, links, host_chips, cores',
    [
        ('v5e', (1, 1), 0, 1, 24),
        ('v5e', (2, 2), 2, 4, 28),
        ('v5e', (2, 4), 2, 8, 28),
        ('v5e', (4, 4), 2, 4, 28),
        ('v5e', (8, 16), 3, 4, 28),
        ('v5e', (16, 16), 4, 4, 28),
        ('v4', (2, 2, 1), 2, 4, 60),
        ('v5p', (2, 2, 2), 3, 4, 52),
        ('v5p', (2, 4, 4), 3, 4, 52),
        ('v5p', (4, 4, 4), 6, 4, 52),
    ],
)
def test_links_and_hosts_of_a_slice(chip, sides, links, host_chips, cores):
    """In a mesh a corner has one neighbour along each axis, in a torus two."""
    where = Slice(chip, sides)
    assert (where.links, where.host_chips, where.cores) == (links, host_chips, cores)


def test_usual_slices():
    sides = {chips: cost_model.grown('v5e', chips).sides for chips in (1, 4, 8, 16, 128, 256)}
    assert sides == {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 128: (8, 16), 256: (16, 16)}
    assert [cost_model.grown('v5p', chips).sides for chips in (4, 8, 16)] == [(2, 2, 1), (2, 2, 2), (2, 2, 4)]


def test_floors_of_a_step():
    """Four v5e chips in a square: 197 TFLOP/s, 819 GB/s, two links of 50 GB/s for a corner."""
    collectives = (
        Collective('all-reduce', 10**8, 4),
        Collective('collective-permute', 10**7, None),
        Collective('all-gather', 4 * 10**7, 4),
        Collective('reduce-scatter', 10**7, 4),
    )
    floor = cost_model.floors(cost_model.Work(197e9, 819e6, collectives), Slice('v5e', (2, 2)))
    sent = 1.5 * 1e8 + 1e7 + 0.75 * 4e7 + 3 * 1e7
    assert floor == pytest.approx({'compute': 1e-3, 'memory': 1e-3, 'interconnect': sent / 100e9})
    assert cost_model.step_seconds(floor) == pytest.approx(1e-3 + sent / 100e9)
    assert cost_model.binding(floor) == 'interconnect'
    assert cost_model.interconnect_seconds(collectives, Slice('v5e', (1, 1))) == 0


def test_plan_names_the_binding_resource():
    """A step of 16 clips takes 10 ms of products; the all-reduce of 1 GB takes 1.5e9 / 1e11 s on four chips."""
    work = cost_model.Work(1.97e12, 1e6, (Collective('all-reduce', 10**9, 4),))
    rows = cost_model.plan(work, 'v5e', clips=16, clips_per_core=1000)
    assert [row['chips'] for row in rows] == [1, 4, 8, 16, 32, 64, 128, 256]
    one, four, pod = rows[0], rows[1], rows[-1]
    assert (one['interconnect_seconds'], one['binding'], one['cores_needed']) == (0, 'compute', pytest.approx(1.6))
    assert four['step_seconds'] == pytest.approx(0.025) and four['binding'] == 'interconnect'
    # The all-reduce takes 1.5 times as long as 16 clips.
    assert four['balance_clips'] == pytest.approx(24)
    assert four['clips_per_second'] == pytest.approx(64 / 0.025)
    # In the torus of a pod each chip has four links: 2 * 255 / 256 GB over 200 GB/s.
    assert pod['interconnect_seconds'] == pytest.approx(2 * 255 / 256 * 1e9 / 200e9)
    assert pod['global_batch'] == 4096
    (slow,) = cost_model.plan(work, 'v5e', clips=16, clips_per_core=50, most=1)
    assert slow['binding'] == 'input' and slow['cores_needed'] == pytest.approx(32) and slow['cores'] == 24


@pytest.mark.parametrize('limit', [0, 1, 2, 7, 100, 1000])
@pytest.mark.parametrize('start', [1, 16, 300])
def test_search_finds_the_largest_that_fits(limit, start):
    search, tried = cost_model.Search(start), []
    while search.candidate is not None:
        tried.append(search.candidate)
        search.record(search.candidate <= limit)
    assert search.fitting <= limit and limit - search.fitting <= max(1, 0.05 * limit)
    assert len(set(tried)) == len(tried) <= 20
    assert search.fitting == limit or limit >= 40 or limit - search.fitting < 1

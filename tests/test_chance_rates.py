"""Tests the chance levels of pointing on the published annotations of VGG-SS, AVE and LLP, to the printed digit.

Every result on these sets is reported with these percentages: a random point, the centre of the frame, the first value
of a constant map. The numbers were computed once by separate code from the same files.
"""

import json
import math

import numpy as np
import pytest

from data_prep import ave, llp
from stattn_jax.metrics import energy, localization, sounding

WHOLE = (1.0, 0.0, 1.0, 0.0)


def percent(values):
    return [round(100 * float(x), 1) for x in values]


@pytest.fixture(scope='module')
def vggss(annotations):
    """Returns the values of each clip with a usable box.

    These are the area; the hits of a random, the centre and the first pixel at 0, 7 and 15 pixels; energies; overlaps.
    """
    pixel = np.arange(224) - 111.5
    distance = pixel**2 + pixel[:, None] ** 2
    narrow, wide = (np.exp(-distance / (2 * (sigma * 224) ** 2)) for sigma in (0.15, 0.25))
    disc, rows = sounding.larger_half(sounding.centre_prior()), []
    for entry in json.loads((annotations / 'vggss/vggss.json').read_text()):
        gap = sounding.box_distance(entry['bbox'])
        inside = gap == 0
        if not inside.any():
            continue
        hit = [gap < tau for tau in (1, 7, 15)]
        rows.append([
            *(target.mean() for target in hit), *(target[112, 112] for target in hit),
            *(target[0, 0] for target in hit),
            *(energy.energy_inside(map_, inside) for map_ in (np.ones((224, 224)), narrow, wide)),
            *(sounding.ciou(half, inside) for half in (disc, inside | True)),
        ])  # fmt: skip
    return np.array(rows, float)


@pytest.mark.slow
def test_space_on_vggss(vggss):
    area = vggss[:, 0]
    assert len(area) == 5156 and percent([area.mean(), np.median(area)]) == [31.3, 25.3]
    small = area < localization.SMALL
    assert round(100 * small.mean()) == 49
    table = {
        'all': (small | True, [31.3, 36.6, 43.3], [69.5, 75.5, 82.1], [0.9, 7.2], [31.3, 55.6, 43.8]),
        'small': (small, [12.3, 16.4, 22.1], [47.0, 56.2, 66.8], [0.1, 0.5], [12.3, 30.3, 20.6]),
        'large': (~small, [49.8, 56.4, 64.0], [91.4, 94.3, 97.0], [1.7, 13.8], None),
    }
    for kept, blind, middle, first, inside in table.values():
        rates = vggss[kept].mean(axis=0)
        assert percent(rates[0:3]) == blind and percent(rates[3:6]) == middle
        assert percent(rates[[6, 8]]) == first
        assert inside is None or percent(rates[9:12]) == inside


def test_overlap_on_vggss(vggss):
    """The predictions are a centred disc of half of the pixels, the whole frame, and noise on half of the pixels."""
    assert percent(sounding.rates(vggss[:, 12])) == [34.0, 37.4]
    assert percent(sounding.rates(vggss[:, 13])) == [22.0, 31.3]
    # Noise: half of the pixels are sampled without replacement, and the number of them inside the boxes follows a
    # hypergeometric distribution; the mean is over 20 samples. The published 0.1 is due to the three clips whose boxes
    # are the whole frame: 25,088 pixels just reach the threshold, 25,087 do not.
    area, rng = np.rint(vggss[:, 0] * 224**2).astype(int), np.random.default_rng(0)
    for drawn, share in ((25088, 0.1), (sounding.PREDICTED, 0.0)):
        found = []
        for _ in range(20):
            inside = rng.hypergeometric(area, 224**2 - area, drawn)
            found.append(sounding.rates(inside / (area + drawn - inside)))
        assert percent(np.mean(found, axis=0)) == [share, 21.6]


def pixel_gap(boxes):
    """Returns the distance in pixels from pixel (112, 112) to the nearest pixel of the boxes.

    The boxes are cut to whole pixels of a frame of 224 pixels.
    """
    gaps = [math.inf]
    for box in boxes:
        x0, y0, x1, y1 = (int(v * 224) for v in box)
        if x0 < x1 and y0 < y1:
            gaps.append(math.hypot(max(x0 - 112, 112 - (x1 - 1), 0), max(y0 - 112, 112 - (y1 - 1), 0)))
    return min(gaps)


def test_centre_and_random_baselines_of_vggss(annotations):
    """Verifies by a loop that the known centre baselines are for whole pixels: 69.5 % (tau = 0), 82.1 % (15 pixels).

    The exact boxes give 69.4 % and 82.8 %, because the distance runs to the box's edge, not to the centre of its last
    pixel. The published 69.4 % and 82.0 % also count the two clips without a usable box (test_sounding.py).
    """
    content = json.loads((annotations / 'vggss/vggss.json').read_text())
    rows = [[b for b in row['bbox'] if 0 <= b[0] < b[2] and 0 <= b[1] < b[3]] for row in content]
    gaps = np.array([pixel_gap(row) for row in rows if row])
    assert (np.mean(gaps == 0), np.mean(gaps < 15)) == pytest.approx((0.695, 0.821), abs=5e-4)
    boxes, n = [np.array([(0.0, *b) for b in row]) for row in rows], len(rows)
    flat = np.zeros((n, 1, 13, 13))
    assert sum(0 < localization.covered_area(row) < localization.SMALL for row in rows) == 2551
    exact = localization.spatial_pointing(flat, boxes, [WHOLE] * n, 1.0)
    tolerant = localization.spatial_pointing(flat, boxes, [WHOLE] * n, 1.0, tau=localization.TOLERANCE)
    assert (exact['pointing/space_n'], exact['pointing/space_skipped']) == (5156, 2)
    assert (exact['pointing/space_centre'], tolerant['pointing/space_centre']) == pytest.approx(
        (0.6941, 0.8280), abs=5e-5
    )
    assert exact['pointing/space_centre'] == pytest.approx(np.mean(gaps == 0), abs=1e-3)
    assert exact['pointing/space_random'] == pytest.approx(0.313, abs=3e-3)
    assert exact['pointing/space'] == pytest.approx(exact['pointing/space_random'], abs=1e-12)


def split_events(listing, modality=None, split=None):
    """Returns the events [e 2] of every pair of clip and label, of one modality and split."""
    kept = {clip.clip_id for clip in listing.clips if clip.split == split or split is None}
    pairs = {}
    for clip_id, label, onset, offset, kind in listing.events:
        if clip_id in kept and kind == (modality or kind):
            pairs.setdefault((clip_id, label), []).append((onset, offset))
    return [np.array(events, float) for events in pairs.values()]


# Pairs of clip and label, percentage of full length; then the hits of a random, the first and the best fixed second in
# percent: over all pairs, those of part length, and those that cover at most half.
TIME = {
    'ave': (4142, 66.4, (82.9, 49.2, 34.7), (78.4, 35.8, 33.3), (84.6, 54.2, 45.7)),
    'llp audio': (2083, 40.3, (70.0, 49.7, 30.0), (66.4, 43.8, 32.7), (71.4, 52.1, 36.2)),
    'llp visual': (1444, 62.0, (81.6, 51.7, 31.1), (80.3, 48.3, 36.4), (83.0, 55.4, 39.2)),
}


@pytest.mark.parametrize('name', TIME)
def test_time_on_ave_and_llp(annotations, name):
    if name == 'ave':
        events = split_events(ave.read(annotations / 'ave'))
    else:
        events = split_events(llp.read(annotations / 'llp'), name.removeprefix('llp '), 'test')
    length, full, *columns = TIME[name]
    covered = np.array([localization.segments_in_events(10, e, 1.0).mean() for e in events])
    assert (len(events), percent([(covered == 1).mean()])) == (length, [full])

    def rates(kept):
        chosen = [e for e, k in zip(events, kept) if k]
        first = np.tile(np.eye(10)[0], (len(chosen), 1))
        return localization.temporal_pointing(first, np.ones_like(first, bool), chosen, 1.0, prefix='x')

    everything, half = rates(covered >= 0), rates(covered <= 0.5)
    assert everything['x_partial_n'] == (covered < 1).sum() and half['x_n'] == (covered <= 0.5).sum()
    keys = ('x_random', 'x', 'x_fixed')
    found = [tuple(percent([everything[key], everything[key.replace('x', 'x_partial', 1)], half[key]])) for key in keys]
    assert found == columns

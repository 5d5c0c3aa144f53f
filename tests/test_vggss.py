"""Tests of vggss.py.

Boxes go to the middle of test clips of the same class; broken ones are dropped and named; the counts are those of the
published file.
"""

import json

import commands
import numpy as np
import pytest

from data_prep import cli, published, vggsound, vggss

# Entries of the published file: one box, a broken one beside a valid one, and no valid one.
ITEMS = [
    {'file': 'zpWuikVorYg_000032', 'class': 'elk bugling', 'bbox': [[0.403125, 0.253125, 0.6, 0.75]]},
    {
        'file': 'Fot4v0DdGyE_000020',
        'class': 'x',
        'bbox': [[0.41875, 0.35, -2.8823037615171176e16, 0.575], [0, 0, 0.5, 1]],
    },
    {'file': 'M1P1xla8rg0_000000', 'class': 'x', 'bbox': [[0.26875, 1.0, 0.753125, 1.0]]},
]


def make_listing(**changes):
    rows = {
        'zpWuikVorYg_000032': ('elk bugling', 'test'),
        'Fot4v0DdGyE_000020': ('x', 'test'),
        'M1P1xla8rg0_000000': ('x', 'test'),
    } | changes
    clips = [
        published.ListedClip(clip_id, clip_id[:11], split, (label,), ()) for clip_id, (label, split) in rows.items()
    ]
    return published.Listing(('elk bugling', 'x'), clips)


@pytest.fixture
def attach(tmp_path):
    """Returns a function that writes a file and attaches it to a listing."""

    def call(content, listing):
        (tmp_path / 'vggss.json').write_text(content if isinstance(content, str) else json.dumps(content))
        vggss.attach(tmp_path / 'vggss.json', listing)
        return listing

    return call


def test_boxes(attach):
    listing = attach([*ITEMS, {'file': 'xxxxxxxxxxx_000000', 'class': 'x', 'bbox': []}], make_listing())
    assert listing.boxes == [
        ('zpWuikVorYg_000032', 5.0, 'elk bugling', 0.403125, 0.253125, 0.6, 0.75),
        ('Fot4v0DdGyE_000020', 5.0, 'x', 0, 0, 0.5, 1),
    ]
    assert 'Fot4v0DdGyE_000020 [0.41875, 0.35, -2.88' in commands.remark(listing.remarks, '2 boxes of', 'left out')
    assert commands.remark(listing.remarks, '1 clips of', 'cannot be scored: M1P1xla8rg0_000000')
    assert commands.remark(listing.remarks, '1 clips of', 'not in the annotations: xxxxxxxxxxx_000000')


@pytest.mark.parametrize('row', [('y', 'test'), ('elk bugling', 'train')])
def test_another_class_or_split_is_refused(attach, row):
    with pytest.raises(cli.UsageError, match='expected the same class, and a test clip'):
        attach(ITEMS, make_listing(zpWuikVorYg_000032=row))


@pytest.mark.parametrize(
    'content',
    ['{', '{"file": 1}', '[{"file": "a", "class": "b"}]', '[{"file": "a", "class": "b", "bbox": [[1, 2, 3]]}]'],
)
def test_another_file_is_refused(attach, content):
    with pytest.raises(cli.UsageError, match='vggss.json'):
        attach(content, make_listing())


def test_the_published_file(annotations):
    listing = vggsound.read(annotations / 'vggsound')
    path = annotations / 'vggss' / 'vggss.json'
    vggss.attach(path, listing)
    content = json.loads(path.read_text())
    assert (len(content), sum(len(item['bbox']) for item in content)) == (5158, 5941)
    assert len({item['class'] for item in content}) == 221
    assert len(listing.boxes) == 5941 - 18
    assert len({box[0] for box in listing.boxes}) == 5158 - 2
    assert commands.remark(listing.remarks, '18 boxes of')
    assert commands.remark(listing.remarks, '2 clips of', 'cannot be scored: M1P1xla8rg0_000000, MKC9LvRivTM_000030')
    # The boxes were made on a grid of 320. The median area of the union of each clip's boxes and the share below a
    # quarter are exact.
    grids: dict = {}
    for clip_id, _, _, *corners in listing.boxes:
        x0, y0, x1, y1 = (round(320 * corner) for corner in corners)
        grids.setdefault(clip_id, np.zeros((320, 320), bool))[y0:y1, x0:x1] = True
    areas = np.array([grid.mean() for grid in grids.values()])
    assert (round(np.median(areas), 3), round((areas < 0.25).mean(), 3)) == (0.253, 0.495)

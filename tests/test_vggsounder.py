"""Tests of vggsounder.py.

Rows become labels by modality; what fits no clip or class is counted and named; the counts are those of the published
file.
"""

import collections

import commands
import pytest

from data_prep import published, rows, vggsound, vggsounder

HEADER = 'video_id,label,modality,background_music,static_image,voice_over\n'


@pytest.fixture
def attach(tmp_path):
    """Returns a function that attaches the given rows to a listing of one test and one train clip."""

    def call(text):
        clips = [
            published.ListedClip(f'--i-y1v8Hy8_00000{i}', '--i-y1v8Hy8', split, ('dog',), ())
            for i, split in enumerate(('test', 'train'))
        ]
        listing = published.Listing(('child singing', 'child speech, kid speaking', 'dog'), clips)
        (tmp_path / 'vggsounder.csv').write_text(HEADER + text)
        vggsounder.attach(tmp_path / 'vggsounder.csv', listing)
        return listing

    return call


def test_rows(attach):
    listing = attach(
        '--i-y1v8Hy8_000000,child singing,AV,False,False,True\n'
        '--i-y1v8Hy8_000000,"child speech, kid speaking",A,True,True,False\n'
        '--i-y1v8Hy8_000000,dog,V,False,False,False\n'
        '--i-y1v8Hy8_000001,dog,V,False,False,False\n'
        '--i-y1v8Hy8_000000,cat,V,False,False,False\n'
        '--i-y1v8Hy8_000000,dog,A,False,False,False\n'
    )
    assert listing.presence == [
        ('--i-y1v8Hy8_000000', 'child singing', 'both', 'voice_over'),
        ('--i-y1v8Hy8_000000', 'child speech, kid speaking', 'audio', 'background_music|static_image'),
        ('--i-y1v8Hy8_000000', 'dog', 'visual', ''),
    ]
    assert commands.remark(listing.remarks, '1 clips of', 'not test clips of the annotations: --i-y1v8Hy8_000001')
    assert commands.remark(listing.remarks, '1 rows of', "a label that is no class: line 6 'cat'")
    assert commands.remark(
        listing.remarks, '1 rows of', 'repeat a clip and label, of which the first is used: line 7 (as line 4)'
    )


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        ('--i-y1v8Hy8_000000,dog,AVT,False,False,False', "column modality: got 'AVT', expected A, V or AV"),
        ('--i-y1v8Hy8_000000,dog,A,0,False,False', "column background_music: got '0', expected True or False"),
        ('--i-y1v8Hy8_000000,dog,A,False', '4 cells, expected 6'),
    ],
)
def test_faults(attach, row, expected):
    with pytest.raises(rows.TableError, match=expected):
        attach(row + '\n')


def test_the_published_file(annotations, tmp_path):
    listing = vggsound.read(annotations / 'vggsound')
    vggsounder.attach(annotations / 'vggsounder' / 'vggsounder.csv', listing)
    assert len(listing.remarks) == 3 and '29509 labels of 12014 clips' in listing.remarks[2]
    own = published.write_tables(listing, {}, tmp_path)
    presence = [item for job in own.jobs for item in job.presence]
    assert collections.Counter(item.modality for item in presence) == {'both': 18377, 'audio': 10149, 'visual': 983}
    assert collections.Counter(flag for item in presence for flag in item.flags) == {
        'voice_over': 6995,
        'static_image': 1892,
    }
    # The first row of the file.
    (job,) = [job for job in own.jobs if job.clip_id == '--i-y1v8Hy8_000000']
    assert (own.classes[job.presence[0].label], job.presence[0].modality) == ('child singing', 'both')

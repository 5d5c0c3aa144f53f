"""Tests of videos.py.

A clip's file is found under each of its names; a name that fits several clips is never guessed.
"""

import os

import pytest

from data_prep import videos

ID = '_0-BIyqJj9Z'


@pytest.fixture
def locate(tmp_path):
    """Returns a function that makes empty files and locates clips.

    Clips are given as (source, start); the function returns ({(source, start): Found}, remarks).
    """

    def call(*files, clips, **options):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        wanted = {clip: (clip[0], videos.possible_names(clip[0], clip[1], clip[1] + 10, **options)) for clip in clips}
        remarks = []
        return videos.locate(tmp_path, wanted, remarks), remarks

    return call


@pytest.mark.parametrize(
    ('stem', 'start', 'stretch'),
    [
        (f'{ID}_000030', 30, (None, None)),
        (f'{ID}_30000_40000', 30, (None, None)),
        (f'{ID}_000030_000040', 30, (None, None)),
        (f'{ID}_30_40', 30, (None, None)),
        (f'{ID}_30', 30, (None, None)),
        (f'{ID}_0', 0, (None, None)),
        (f'{ID}_101.8_111.8', 101.8, (None, None)),
        (f'Y{ID}', 30, (None, None)),
        (ID, 30, (30, 40)),
    ],
)
def test_each_name(locate, stem, start, stretch):
    found, remarks = locate(f'a/b/{stem}.MKV', 'a/other.mp4', f'{stem}.txt', clips=[(ID, start)])
    assert found == {(ID, start): videos.Found(f'a/b/{stem}.MKV', *stretch)}
    assert '2 video files; 1 of 1 clips are there: 1 as ' in remarks[0] and 'otherwise' not in remarks[0]
    assert remarks[1:] == ['1 video files are of no clip of the annotations: a/other.mp4']


@pytest.mark.parametrize('stem', [
    '{}_30.000_40.000', '{}_030', '{}-30', '{}_30.0', '{}-30-40', '{} 30 40', '{}.30', '{}_00030_00040', '{}_30s_40s',
    '{}_30_to_40', '{}_030000_040000', 'Y{}_30.000_40.000', 'Y{}_000030',
])  # fmt: skip
def test_times_may_be_written_in_any_way(locate, stem):
    found, remarks = locate(f'{stem.format(ID)}.mp4', clips=[(ID, 30), (ID, 50)])
    assert found == {(ID, 30): videos.Found(f'{stem.format(ID)}.mp4')}
    assert '1 of 2 clips are there: 1 as ID_' in remarks[0] and remarks[0].endswith('spelt otherwise')
    assert len(remarks) == 1


@pytest.mark.parametrize('stem', ['{}_031', '{}_30.5', '{}_30_41', '{}-3', '{}x_30', '{}_30_40_50', '{}_3e1', '{}_٣٠'])
def test_other_times_are_of_no_clip_and_counted(locate, stem):
    found, remarks = locate(f'{stem.format(ID)}.mp4', f'{ID}_30.mp4', clips=[(ID, 30)])
    assert found == {(ID, 30): videos.Found(f'{ID}_30.mp4')}
    assert remarks[1:] == [f'1 video files are of no clip of the annotations: {stem.format(ID)}.mp4']


def test_the_exact_name_goes_first_and_the_other_file_is_named(locate):
    found, remarks = locate(f'a/{ID}_030.mp4', f'b/{ID}_30.mp4', f'{ID}.mp4', clips=[(ID, 30)])
    assert found[ID, 30].path == f'b/{ID}_30.mp4'
    assert len(remarks) == 2 and remarks[1].startswith('2 more files fit clips that have another file')
    assert remarks[1].endswith(f'{ID}.mp4, a/{ID}_030.mp4')


def test_an_id_that_begins_with_y_or_ends_with_a_separator(locate):
    yid, end = 'Y1234567890', 'abcdefghij-'
    found, _ = locate(f'{yid}_030.mp4', f'{end}-030.mp4', clips=[(yid, 30), (end, 30)])
    assert {clip: file.path for clip, file in found.items()} == {
        (yid, 30): f'{yid}_030.mp4',
        (end, 30): f'{end}-030.mp4',
    }


def test_no_clips_and_no_files(locate):
    assert locate(clips=[])[0] == {}


def test_links_in_a_circle_end(locate, tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
    (tmp_path / 'a' / 'b').symlink_to(tmp_path / 'b')
    (tmp_path / 'b' / 'a').symlink_to(tmp_path / 'a')
    (tmp_path / 'a' / 'self').symlink_to('self')
    assert locate(f'a/{ID}_30.mp4', clips=[(ID, 30)])[0][ID, 30].path == f'a/{ID}_30.mp4'


def test_names_that_are_not_utf8_are_named(locate, tmp_path):
    (tmp_path / os.fsdecode(b'caf\xe9.mp4')).touch()
    _, remarks = locate(f'{ID}_30.mp4', clips=[(ID, 30)])
    assert remarks[0] == "1 video files are left out, since their names are not UTF-8: 'caf\\udce9.mp4'"


@pytest.mark.parametrize(('wanted', 'there'), [('é/ü.mp4', 'e\u0301/u\u0308.mp4'), ('e\u0301/x.OGV', 'é/x.OGV')])
def test_paths_find_their_other_unicode_form(tmp_path, wanted, there):
    for path in (there, 'more.mkv'):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    remarks = []
    assert videos.match_paths(tmp_path, ['gone.mp4', wanted], remarks) == {wanted: there}
    assert remarks == [
        f'1 videos are found under another Unicode form of their name: {wanted!r} as {ascii(there)}',
        f'1 video files in {tmp_path} are in no row of the clips table: more.mkv',
    ]
    assert videos.match_paths(tmp_path, [f'./{there}', 'more.mkv'], remarks) == {} and len(remarks) == 2


def test_names_of_other_clips_are_not_taken(locate):
    found, remarks = locate(
        f'{ID}_000031.mp4', f'{ID}_30000_41000.mp4', f'{ID}_3_13.mp4', f'X{ID}.mp4', clips=[(ID, 30)]
    )
    assert found == {}
    assert '0 of 1 clips are there; ' in remarks[0] and f'looked for as {ID}_000030, {ID}_000030_000040, ' in remarks[0]


def test_the_id_alone_is_the_clip_where_there_is_no_whole_video(locate):
    assert locate(f'{ID}.mp4', clips=[(ID, 30)], whole=False)[0] == {(ID, 30): videos.Found(f'{ID}.mp4')}


@pytest.mark.parametrize(('stem', 'whole'), [(f'Y{ID}', True), (ID, False)])
def test_a_name_that_fits_two_clips_is_used_for_neither(locate, stem, whole):
    found, remarks = locate(f'{stem}.mp4', clips=[(ID, 30), (ID, 50), ('abcdefghijk', 0)], whole=whole)
    assert found == {}
    assert remarks[1].startswith('2 clips not used, since the name of their file fits several clips of one video: ')
    assert f'{stem}.mp4' in remarks[1]


def test_the_whole_video_serves_all_its_clips_and_a_cut_one_goes_first(locate):
    found, remarks = locate(f'{ID}.mp4', f'{ID}_000050.webm', f'Y{ID}.mp4', clips=[(ID, 30), (ID, 50)])
    assert found == {(ID, 30): videos.Found(f'{ID}.mp4', 30, 40), (ID, 50): videos.Found(f'{ID}_000050.webm')}
    assert '1 as ID, 1 as ID_000030' in remarks[0]


def test_two_files_of_one_name_the_first_in_sorted_order_and_named(locate):
    found, remarks = locate(f'b/{ID}_30.mp4', f'a/{ID}_30.avi', 'a/x.mp4', 'b/x.mp4', clips=[(ID, 30)])
    assert found[ID, 30].path == f'a/{ID}_30.avi'
    assert remarks[1] == (
        '1 files of one name in several folders, of which the first in sorted order is used: '
        f'a/{ID}_30.avi, not b/{ID}_30.mp4'
    )


def test_folders_behind_links_are_searched(locate, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('disk2')
    (elsewhere / f'{ID}_30.mp4').touch()
    (tmp_path / 'more').symlink_to(elsewhere)
    assert locate(clips=[(ID, 30)])[0][ID, 30].path == f'more/{ID}_30.mp4'


def test_remarks_name_fifty():
    assert videos.named('things', ['a', 'b']) == '2 things: a, b'
    assert videos.named('things', map(str, range(53))).endswith(', 48, 49, ... and 3 more')

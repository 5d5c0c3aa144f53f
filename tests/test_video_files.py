"""Tests which files a folder, a pattern and a file name stand for, and that results get distinct names."""

import os
import pathlib

import pytest

from stattn_jax.data import video_files


@pytest.fixture
def folder(tmp_path):
    for name in ('b.mp4', 'a.MKV', 'notes.txt', 'deep/er/c.webm', 'deep/thumbs.db', 'odd.vob'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def relative(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_stands_for_every_video_below_it_and_the_rest_is_counted(folder):
    paths, remarks = video_files.find([str(folder)])
    assert relative(paths, folder) == ['a.MKV', 'b.mp4', 'deep/er/c.webm']
    assert remarks == [f'{folder}: left out 3 other files']


def test_a_pattern_stands_for_the_videos_that_match_or_for_all_files_of_its_suffix(folder):
    paths, remarks = video_files.find([f'{folder}/*'])
    assert relative(paths, folder) == ['a.MKV', 'b.mp4'] and remarks == [f'{folder}/*: left out 2 other files']
    assert relative(video_files.find([f'{folder}/**/*.webm'])[0], folder) == ['deep/er/c.webm']
    assert relative(video_files.find([f'{folder}/*.vob'])[0], folder) == ['odd.vob']
    assert video_files.find([f'{folder}/none*']) == ([], [])


def test_files_are_taken_as_named_and_each_only_once(folder):
    odd, missing = folder / 'odd.vob', folder / 'missing.mp4'
    (folder / '[1].mp4').touch()
    paths, remarks = video_files.find([str(odd), str(missing), str(folder / '[1].mp4'), str(folder), f'{folder}/b*'])
    assert relative(paths, folder) == ['odd.vob', 'missing.mp4', '[1].mp4', 'a.MKV', 'b.mp4', 'deep/er/c.webm']
    assert len(remarks) == 1


def test_links_are_followed_but_not_in_circles(folder):
    os.symlink(folder, folder / 'deep' / 'circle')
    assert len(video_files.find([str(folder)])[0]) == 3


@pytest.mark.skipif(os.name == 'nt', reason='names are UTF-16 there')
def test_names_that_are_not_utf8_are_counted(folder):
    os.close(os.open(os.fsencode(folder) + b'/\xff.mp4', os.O_CREAT))
    paths, remarks = video_files.find([str(folder)])
    assert len(paths) == 3 and f'{folder}: left out 1 video files whose names are not UTF-8' in remarks


def test_no_name_is_not_this_folder_and_strange_names_are_printed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert video_files.find(['']) == ([], [])
    paths, remarks = video_files.find(['\udcff.mp4'])
    assert paths == [] and remarks == ['\\udcff.mp4: left out, since its name is not UTF-8; rename it']


def test_data_of_macos_beside_a_video_are_no_videos(folder):
    (folder / '._b.mp4').touch()
    assert relative(video_files.find([str(folder)])[0], folder) == ['a.MKV', 'b.mp4', 'deep/er/c.webm']


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        ('/v/a.mp4 /v/b.mp4', 'a b'),
        ('/v/clip.mp4 /v/clip.mkv', 'clip.mp4 clip.mkv'),
        ('/v/a/clip.mp4 /v/b/clip.mp4 /v/other.mp4', 'a_clip.mp4 b_clip.mp4 other'),
        ('/v/a/clip.mp4 /v/a/clip.mkv /v/b/clip.mkv', 'clip.mp4 a_clip.mkv b_clip.mkv'),
        ('/v/Clip.mp4 /v/clip.mkv', 'Clip.mp4 clip.mkv'),
        ('/v/index.html.mp4 /v/..mp4', 'index.html.mp4 ..mp4'),
        ('/a_b/c.mp4 /a/b_c.mp4 /x/a_b_c.mp4', 'c b_c a_b_c'),
    ],
)
def test_names_are_distinct_and_as_short_as_can_be(paths, names):
    paths = [pathlib.Path(path) for path in paths.split()]
    assert video_files.distinct_names(paths, taken=('index.html',)) == dict(zip(paths, names.split()))


def test_names_that_no_part_of_the_path_distinguishes_are_numbered():
    paths = [pathlib.Path(path) for path in ('/a_b/c.mp4', '/a/b_c.mp4', '/a_b/c.mkv', '/a/b_c.mkv')]
    names = video_files.distinct_names(paths)
    assert len(set(names.values())) == 4


def test_a_video_that_changed_is_another(tmp_path):
    path = tmp_path / 'a.mp4'
    path.write_bytes(b'1')
    before = video_files.identity(path)
    os.utime(path, ns=(1, 1))
    after = video_files.identity(path)
    assert before != after and before['path'] == after['path']
    assert video_files.identity(tmp_path / 'missing.mp4') == {'path': str(tmp_path / 'missing.mp4')}

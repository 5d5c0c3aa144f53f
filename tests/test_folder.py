"""Tests folder.py: videos and tables become a data set, and bad videos are counted and named.

Wrong use is one line and exit code 2.
"""

import contextlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg

from data_prep import cli, folder
from stattn_jax.data import media, pipeline, records, source

HEADER = 'clip_id,video,start,end,split,labels\n'
CLIPS = HEADER + (
    'good1,good.mp4,,,train,tone\n'
    'good2,sub/good 2.mp4,0.5,2.5,train,tone|noise\n'
    'short,good.mp4,1,,test,noise\n'
    'mute,mute.mp4,,,train,tone\n'
    'text,text.mp4,,,train,tone\n'
    'cut,cut.mp4,,,train,noise\n'
    'gone,gone.mp4,,,test,noise\n'
)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Makes two good videos of three seconds, one without audio, a truncated one, and a file that is no video."""
    out = tmp_path_factory.mktemp('videos')
    (out / 'sub').mkdir()
    rng = np.random.default_rng(0)
    rate, seconds, fps = 16000, 3, 10
    frames = np.repeat(rng.integers(0, 256, (seconds * fps, 6, 8, 3), np.uint8), 8, axis=1).repeat(8, axis=2)
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(seconds * rate) / rate)).astype(np.float32)
    noise = (0.1 * rng.standard_normal(seconds * rate)).astype(np.float32)
    media.write_video(out / 'good.mp4', frames, fps, tone, rate)
    media.write_video(out / 'sub' / 'good 2.mp4', frames, fps, noise, rate)
    media.write_video(out / 'mute.mp4', frames, fps, None, rate)
    whole = (out / 'good.mp4').read_bytes()
    (out / 'cut.mp4').write_bytes(whole[: len(whole) // 2])
    (out / 'text.mp4').write_text('this is not a video\n' * 100)
    return out


@pytest.fixture
def run(videos, tmp_path, capsys):
    """Returns a function that writes the given clips table and runs the command in this process.

    The function returns (exit code, stdout, error lines).
    """

    def call(*extra, clips=CLIPS, **tables):
        flags = []
        for name, text in {'clips': clips, **tables}.items():
            (tmp_path / f'{name}.csv').write_text(text)
            flags.append(f'--{name}={tmp_path}/{name}.csv')
        folder.FLAGS.unparse_flags()
        argv = [
            'folder',
            f'--videos={videos}',
            f'--out={tmp_path}/out',
            '--workers=0',
            '--segments=3',
            '--short_side=32',
        ]
        given = {flag.partition('=')[0] for flag in extra}
        argv = [flag for flag in argv if flag.partition('=')[0] not in given]
        code = cli.exit_code([*argv, *flags, *extra], folder.main, folder.FLAGS, folder.__doc__)
        output = capsys.readouterr()
        return code, output.out, [line for line in output.err.splitlines() if line.startswith('error')]

    return call


def test_good_videos_are_used_and_bad_ones_named(run, tmp_path):
    events = 'clip_id,label,onset,offset,modality\ngood2,noise,0,1.5,audio\nmute,tone,0,1,visual\n'
    boxes = 'clip_id,time,label,x0,y0,x1,y1\ngood1,0.5,tone,0.25,0.25,0.75,0.5\n'
    presence = 'clip_id,label,modality,flags\ngood1,noise,audio,voice_over|static_image\n'
    code, out, errors = run(events=events, boxes=boxes, presence=presence)
    assert (code, errors) == (0, [])
    info = source.DatasetInfo.load(tmp_path / 'out')
    assert (info.classes, info.multi_label, info.splits) == (('noise', 'tone'), True, {'test': 1, 'train': 2})
    train = source.RecordSource(tmp_path / 'out', 'train')
    first, second = train[0], train[1]
    assert (first.clip_id, second.clip_id) == ('good1', 'good2')
    assert (second.labels, second.start, second.video) == ((1, 0), 0.5, 'sub/good 2.mp4')
    assert [(event.label, event.offset, event.modality) for event in second.events] == [(0, 1.5, 'audio')]
    assert [(box.label, box.x1, box.y1) for box in first.boxes] == [(1, 0.75, 0.5)]
    assert first.presence == (records.Presence(0, 'audio', ('voice_over', 'static_image')),)
    assert (first.clip.height, first.clip.width) == (48, 64)
    assert info.spec.square and simplejpeg.decode_jpeg_header(first.clip.frames[0])[:2] == (32, 32)
    assert pipeline.clip_arrays(first, 32, 'squash')['frames'].shape == (3, 32, 32, 3)
    assert first.clip.valid.tolist() == [True] * 3
    test = source.RecordSource(tmp_path / 'out', 'test')
    assert (test[0].clip.valid.tolist(), test[0].clip.notes) == ([True, True, False], ('short',))

    summary = json.loads((tmp_path / 'out' / 'prepare_report.json').read_text())['splits']
    skipped = {clip: reason for part in summary.values() for reason, clips in part['skipped'].items() for clip in clips}
    assert skipped.pop('cut') in media.REASONS
    assert skipped == {'mute': 'no_sound', 'text': 'not_a_video', 'gone': 'missing'}
    assert summary['test']['notes'] == {'short': ['short']}
    for clip_id in ('mute', 'text', 'cut', 'gone'):
        assert f'\n  {clip_id}: ' in out


def test_the_command_itself_with_two_processes(videos, tmp_path, run):
    """Verifies that the bytes equal those that this process writes."""
    assert run()[0] == 0
    command = [sys.executable, '-m', 'data_prep.folder', f'--videos={videos}', f'--clips={tmp_path}/clips.csv']
    command += [f'--out={tmp_path}/other', '--workers=2', '--segments=3', '--short_side=32']
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 'skipped in train: 1 no_sound (' in done.stdout
    assert 'Traceback' not in done.stderr
    left, right = (tmp_path / name for name in ('out', 'other'))
    names = sorted(path.relative_to(left) for path in left.rglob('*') if path.is_file())
    assert names == sorted(path.relative_to(right) for path in right.rglob('*') if path.is_file())
    assert all((left / name).read_bytes() == (right / name).read_bytes() for name in names)


def test_classes_that_cannot_be_learned_and_unused_files_are_remarks(run, tmp_path):
    code, out, _ = run(clips=HEADER + 'a,good.mp4,,,train,tone\nb,./good.mp4,,,test,hum\n')
    assert code == 0
    remarks = json.loads((tmp_path / 'out' / 'prepare_report.json').read_text())['remarks']
    assert len(remarks) == 2 and all(f'remark: {remark}\n' in out for remark in remarks)
    assert remarks[0].startswith('4 video files in ') and remarks[0].endswith(
        ' are in no row of the clips table: cut.mp4, mute.mp4, sub/good 2.mp4, text.mp4'
    )
    assert remarks[1] == "1 of 2 classes cannot be learned, since only the split test has them: 'hum'"


def test_a_class_that_loses_its_training_clips_is_a_remark(run):
    clips = HEADER + 'a,good.mp4,,,train,tone\nb,good.mp4,,,test,hum\nc,gone.mp4,,,train,hum\n'
    code, out, _ = run(clips=clips)
    assert code == 0
    assert "remark: 1 of 2 classes cannot be learned, since only the split test has them: 'hum'\n" in out


def test_names_in_another_unicode_form_are_found(run, videos, tmp_path):
    (tmp_path / 'cafe\u0301').mkdir()
    (tmp_path / 'cafe\u0301' / 'u\u0308.mp4').write_bytes((videos / 'good.mp4').read_bytes())
    code, out, _ = run(f'--videos={tmp_path}', clips=HEADER + 'a,café/ü.mp4,,,train,x\n')
    assert code == 0 and 'remark: 1 videos are found under another Unicode form of their name: ' in out
    assert source.RecordSource(tmp_path / 'out', 'train')[0].video == 'cafe\u0301/u\u0308.mp4'


def test_labels_are_merged_on_request(run, tmp_path):
    clips = HEADER + 'a,good.mp4,,,train,Tone\nb,good.mp4,,,test,tone\n'
    code, _, errors = run(clips=clips)
    assert code == 2 and "labels 'Tone' and 'tone' (first in lines 2, 3) differ only by case" in errors[0]
    code, out, _ = run('--merge_labels', clips=clips)
    assert code == 0 and "remark: 1 spellings of labels merged (with their number): 'tone' as 'Tone' (1)" in out
    assert source.DatasetInfo.load(tmp_path / 'out').classes == ('Tone',)


def test_no_usable_clip_fails_with_the_reason(run, tmp_path):
    code, _, errors = run(clips=HEADER + 'a,text.mp4,,,train,x\n')
    assert code == 1
    assert "split 'train' has no usable clip (1 not_a_video; the first: a:" in errors[0]
    assert not (tmp_path / 'out' / 'stattn.json').exists()


def test_other_segments_in_the_same_directory_are_refused(run):
    assert run()[0] == 0
    code, _, errors = run('--segments=4')
    assert code == 1
    assert 'segments 3 there, 4 now' in errors[0]


@pytest.mark.parametrize(
    ('tables', 'extra', 'expected'),
    [
        ({'clips': 'clip_id,video,start,end,labels\na,good.mp4,,,x\n'}, [], 'column split is missing'),
        ({'clips': HEADER + '../a,good.mp4,,,train,x\n'}, [], "column clip_id: got '../a'"),
        ({'clips': HEADER + 'a,../good.mp4,,,train,x\n'}, [], "column video: got '../good.mp4'"),
        ({'classes': 'tone\n'}, [], "'noise' is not in it"),
        ({'events': 'clip_id,label,onset,offset,modality\ngood1,hum,0,1,audio\n'}, [], "column label: got 'hum'"),
        ({'boxes': 'clip_id,time,label,x0,y0,x1,y1\ngood1,0,tone,0,0,1,1.5\n'}, [], "column y1: got '1.5'"),
        ({}, ['--videos=/nowhere'], '--videos=/nowhere is not a folder'),
        ({}, ['--segment=4'], "Unknown command line flag 'segment'"),
        ({}, ['--workers=none'], '--workers=none'),
        ({}, ['--segment_seconds=0'], '--segment_seconds=0.0: give seconds from 0.1 to 60'),
        ({}, ['extra'], "['extra'] on the command line is not a flag"),
    ],
)
def test_wrong_use_is_exit_2_with_a_line_each(run, tmp_path, tables, extra, expected):
    code, _, errors = run(*extra, **tables)
    assert code == 2
    assert expected in '\n'.join(errors)
    assert not (tmp_path / 'out').exists()


def test_required_flags_are_named():
    done = subprocess.run([sys.executable, '-m', 'data_prep.folder'], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(name in line for name in ('--videos', '--clips', '--out'))


def test_help_lists_the_flags(capsys):
    assert cli.exit_code(['folder', '--help'], folder.main, folder.FLAGS, folder.__doc__) == 0
    assert '--segment_seconds' in capsys.readouterr().out


@pytest.mark.skipif(not os.path.exists('../shared/media/BjCEufrlXm4.mp4'), reason='the real clip is not here')
def test_real_clip(tmp_path):
    (tmp_path / 'clips.csv').write_text(HEADER + 'real,BjCEufrlXm4.mp4,,,train,Speech|Dog\n')
    command = [sys.executable, '-m', 'data_prep.folder', '--videos=../shared/media', f'--clips={tmp_path}/clips.csv']
    subprocess.run([*command, f'--out={tmp_path}/out', '--workers=0'], check=True, capture_output=True)
    clip = source.RecordSource(tmp_path / 'out', 'train')[0].clip
    assert len(clip.frames) == 10
    assert clip.valid.sum() >= 9


def test_silent_videos_can_be_kept(run, tmp_path):
    code, out, errors = run('--silent=keep')
    assert (code, errors) == (0, [])
    summary = json.loads((tmp_path / 'out' / 'prepare_report.json').read_text())['splits']['train']
    assert summary['notes']['no_sound'] == ['mute'] and 'no_sound' not in summary['skipped']
    assert out.splitlines()[0].split()[-4:] == ['short', 'no_sound', 'other', 'notes']
    records_of = source.RecordSource(tmp_path / 'out', 'train')
    assert [record.clip.notes for record in records_of] == [(), ('short',), ('no_sound',)]
    with contextlib.closing(
        pipeline.eval_batches(records_of, global_batch=3, threads=1, frame_size=32, fit='squash')
    ) as batches:
        assert next(batches)['modalities'].tolist() == [[True, True], [True, True], [True, False]]
    code, _, errors = run()
    assert code == 1 and 'was begun with another plan (silent differ)' in errors[0]

"""Tests of published.py: tables that others can continue from, and refused commands that leave files alone."""

import clips
import commands
import planted
import pytest

from data_prep import cli, folder, llp, published, vggsound, videos
from stattn_jax.data import source

ANNOTATIONS = {
    'AVVP_train.csv': 'filename\tevent_labels\nBjCEufrlXm4_20_30\tSpeech,Dog\n',
    'AVVP_val_pd.csv': 'filename\tevent_labels\nD_EG4Cs_MEU_30_40\tFrying_(food),Speech\n',
    'AVVP_test_pd.csv': 'filename\tevent_labels\nLcFWKgFphXI_20_30\tClapping\nBaue01N86wE_10_20\tDog\n',
    'AVVP_eval_audio.csv': 'filename\tonset\toffset\tevent_labels\nLcFWKgFphXI_20_30\t2\t10\tClapping\n',
    'AVVP_eval_visual.csv': 'filename\tonset\toffset\tevent_labels\n',
}


@pytest.fixture
def given(tmp_path):
    """Annotations of four clips and the videos of three of them."""
    for name, text in ANNOTATIONS.items():
        (tmp_path / name).write_text(text)
    for stem in ('BjCEufrlXm4', 'D_EG4Cs_MEU_30_40', 'LcFWKgFphXI_20_30'):
        clips.write_small(tmp_path / 'videos' / f'{stem}.mp4')
    return tmp_path


def run_llp(given, capsys, *more, out='out'):
    return commands.run(
        llp, capsys, f'--annotations={given}', f'--videos={given}/videos', f'--out={given / out}', *more
    )


def shards(out):
    return {path.name.partition('-')[2]: path.read_bytes() for path in out.glob('*.tfrecord-*')}


def test_the_tables_that_it_leaves_make_the_same_records(given, capsys):
    assert run_llp(given, capsys)[0] == 0
    tables = given / 'out' / 'tables'
    flags = [f'--{name}={tables}/{name}.csv' for name in ('clips', 'events', 'boxes', 'presence')]
    flags += [f'--classes={tables}/classes.txt', f'--videos={given}/videos', f'--out={given}/again', '--name=llp']
    assert commands.run(folder, capsys, *flags)[0] == 0
    assert shards(given / 'again') == shards(given / 'out')
    one, two = (source.DatasetInfo.load(given / name) for name in ('out', 'again'))
    assert one == two and one.splits == {'test': 1, 'train': 1, 'val': 1} and one.wanted['test'] == 2


def test_a_refused_command_leaves_the_tables_as_they_are(given, capsys):
    assert run_llp(given, capsys)[0] == 0
    before = {path: path.read_bytes() for path in (given / 'out' / 'tables').iterdir()}
    (given / 'AVVP_test_pd.csv').write_text(ANNOTATIONS['AVVP_test_pd.csv'].replace('Dog', 'Cat'))
    code, _, errors = run_llp(given, capsys)
    assert code == 1 and 'was begun with another plan (clips differ)' in errors[0]
    assert {path: path.read_bytes() for path in (given / 'out' / 'tables').iterdir()} == before


def test_too_few_clips_are_an_error_and_less_goes_on_at_once(given, capsys):
    code, output, errors = run_llp(given, capsys, '--require=0.9')
    assert code == 1 and 'test 1 of 2' in errors[0] and '1 missing' in errors[0] and 'missing' in output
    assert not (given / 'out' / 'stattn.json').exists()
    code, output, errors = run_llp(given, capsys, '--require=3')
    assert code == 0 and '4 of 4 clips are there already' in output


def test_features_refuse_options_that_need_videos(given, capsys):
    planted.write_llp(given / 'features', {'BjCEufrlXm4': [0]}, 25)
    flags = (f'--annotations={given}', f'--features={given}/features', f'--out={given}/out')
    code, _, errors = commands.run(llp, capsys, *flags, '--segments=5')
    assert code == 2 and '--segments' in errors[0]
    code, _, errors = commands.run(llp, capsys, *flags, f'--videos={given}/videos')
    assert code == 2 and 'features' in errors[0] and 'videos' in errors[0]
    code, _, errors = commands.run(llp, capsys, *flags[:1], f'--features={given}/nowhere', flags[2])
    assert code == 2 and 'nowhere is not a folder; expected the folder with vggish' in errors[0]


def test_the_front_end_of_the_sound_can_be_chosen(given, capsys):
    assert run_llp(given, capsys, '--mel=panns_32k')[0] == 0
    record = commands.records(given / 'out')['LcFWKgFphXI_20_30']
    assert source.DatasetInfo.load(given / 'out').spec.mel == 'panns_32k' and record.clip.log_mel.shape == (10, 101, 64)
    code, _, errors = run_llp(given, capsys, '--mel=panns', out='other')
    assert code == 2 and 'panns_32k' in errors[0] and not (given / 'other').exists()


def test_annotations_without_clips_or_with_two_spellings_are_refused(tmp_path):
    with pytest.raises(cli.UsageError, match='the annotation files list no clips'):
        published.write_tables(published.Listing(('x',), []), {}, tmp_path)
    clip = published.ListedClip('c', 'abcdefghijk', 'test', ('x',), videos.possible_names('abcdefghijk', 30, 40))
    with pytest.raises(cli.UsageError, match="the annotations spell a class as 'x' and 'X'; write one of them"):
        published.write_tables(published.Listing(('x', 'X'), [clip]), {}, tmp_path)


def test_empty_annotations_are_one_line(tmp_path, capsys):
    (tmp_path / 'vggsound.csv').touch()
    flags = (f'--annotations={tmp_path}', f'--videos={tmp_path}', f'--out={tmp_path}/out')
    code, _, errors = commands.run(vggsound, capsys, *flags)
    assert code == 2 and errors == [
        f'error: {tmp_path}/vggsound.csv: holds no rows; expected rows of id,start,label,split'
    ]


def test_a_clip_without_a_file_keeps_the_name_that_it_should_have(tmp_path):
    clip = published.ListedClip('c', 'abcdefghijk', 'test', ('x',), videos.possible_names('abcdefghijk', 30, 40))
    own = published.write_tables(published.Listing(('x', 'y'), [clip]), {}, tmp_path)
    assert [job.video for job in own.jobs] == ['abcdefghijk_000030.mp4'] and own.classes == ('x', 'y')
    own = published.write_tables(published.Listing(('x',), [clip]), {'c': videos.Found('a/b.mkv', 3, 13)}, tmp_path)
    assert [(job.video, job.start, job.end) for job in own.jobs] == [('a/b.mkv', 3.0, 13.0)]

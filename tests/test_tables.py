"""Tests of tables.py.

Valid tables are read exactly; a fault is one line with file, line, column, value and expectation.
"""

import csv

import pytest

from data_prep import rows, tables
from data_prep.prepare import Job
from stattn_jax.data import records

CLIPS = 'clip_id,video,start,end,split,labels\n'
GOOD = CLIPS + 'a,v/a.mp4,20,30,train,dog|cat\nb,b.mp4,,,test,dog\n'
EVENTS = 'clip_id,label,onset,offset,modality\n'
BOXES = 'clip_id,time,label,x0,y0,x1,y1\n'
PRESENCE = 'clip_id,label,modality,flags\n'


@pytest.fixture
def read(tmp_path):
    """Returns a function that writes the given tables and reads them."""

    def run(clips=GOOD, merge_labels=False, **others):
        paths = {}
        for name, text in {'clips': clips, **others}.items():
            paths[name] = tmp_path / f'{name}.csv'
            paths[name].write_bytes(text if isinstance(text, bytes) else text.encode())
        return tables.read_tables(**paths, merge_labels=merge_labels)

    return run


@pytest.fixture
def faults(read, tmp_path):
    """Returns a function that gives the faults found in the given tables, without the folder's path."""

    def run(**texts):
        with pytest.raises(rows.TableError) as caught:
            read(**texts)
        assert all('\n' not in fault for fault in caught.value.faults)
        return [fault.replace(f'{tmp_path}/', '') for fault in caught.value.faults]

    return run


def test_sound_tables(read):
    own = read(events=EVENTS + 'a,dog,0.5,2,audio\na,cat,0,10,both\n', boxes=BOXES + 'b,3.5,dog,0,0.25,0.5,1\n')
    assert own.classes == ('cat', 'dog')
    assert own.multi_label
    assert own.jobs == [
        Job(
            clip_id='a',
            split='train',
            labels=(1, 0),
            events=(records.Event(1, 0.5, 2.0, 'audio'), records.Event(0, 0.0, 10.0, 'both')),
            video='v/a.mp4',
            start=20.0,
            end=30.0,
        ),
        Job(clip_id='b', split='test', labels=(1,), boxes=(records.Box(3.5, 1, 0.0, 0.25, 0.5, 1.0),), video='b.mp4'),
    ]


def test_single_label(read):
    assert not read(CLIPS + 'a,a.mp4,,,train,dog\n').multi_label


def test_classes_file_sets_the_order_and_may_have_more(read):
    own = read(classes='dog\nbird\n\ncat\n')
    assert own.classes == ('dog', 'bird', 'cat')
    assert own.jobs[0].labels == (0, 2)


def test_bom_crlf_quotes_extra_columns_and_blanks(read, tmp_path):
    """A table as a spreadsheet writes it is read like the output of the csv module's own writer."""
    with open(tmp_path / 'other.csv', 'w', encoding='utf-8-sig', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['labels', 'clip_id', 'video', 'remark', 'start', 'end', 'split'])
        writer.writerow(['Bellow, deep|Zug "ICE"', 'é1', 'x, y.mp4', 'two\nlines', '1.5', '', 'train'])
    text = (tmp_path / 'other.csv').read_bytes()
    assert b'\r\n' in text
    own = read(text + b'\r\n')
    assert own.classes == ('Bellow, deep', 'Zug "ICE"')
    assert own.jobs == [Job('é1', 'train', (0, 1), video='x, y.mp4', start=1.5)]


def test_spaces_around_header_names_do_not_count(read):
    own = read('clip_id, video, start, end ,split,\tlabels\na, a.mp4, , 3, train, dog\nb,b.mp4,,,test, cat|dog\n')
    assert own.classes == ('cat', 'dog') and own.jobs[0] == Job('a', 'train', (1,), video='a.mp4', end=3.0)


def test_columns_without_a_name_are_ignored(read):
    assert read(CLIPS.strip() + ',,\na,a.mp4,,,train,dog,,\n').classes == ('dog',)


@pytest.mark.parametrize('name', ['labels', ' labels ', 'remark'])
def test_a_column_twice_is_a_fault(faults, name):
    (fault,) = faults(clips=CLIPS.strip() + f',remark,{name}\na,a.mp4,,,train,dog,x,cow\n')
    assert fault == (
        f'clips.csv:1: column {name.strip()} is there twice; the header has {CLIPS.strip()},remark,{name.strip()}; '
        'rename or delete one'
    )


@pytest.mark.parametrize(
    ('one', 'two', 'shown'),
    [
        ('Dog', 'dog', "'Dog' and 'dog'"),
        ('STRASSE', 'Straße', "'STRASSE' and 'Straße'"),
        ('café', 'cafe\u0301', "'café' (caf\\xe9) and 'cafe\u0301' (cafe\\u0301)"),
        ('Café', 'cafe\u0301', "'Café' and 'cafe\u0301'"),
        ('dog', 'dog ', "'dog' and 'dog '"),
        ('big dog', 'big  dog', "'big dog' and 'big  dog'"),
    ],
)
def test_spellings_of_one_label_are_refused_or_merged(faults, read, one, two, shown):
    clips = CLIPS + f'a,a.mp4,,,train,{one}\nb,b.mp4,,,test,"cat|{two}"\nc,c.mp4,,,train,{one}\n'
    (fault,) = faults(clips=clips)
    assert fault == (
        f'clips.csv: labels {shown} (first in lines 2, 3) differ only by case, Unicode form or surrounding space; '
        f'write one of them everywhere, or add --merge_labels, which takes {one!r}'
    )
    own = read(clips, events=EVENTS + f'a,{two},0,1,both\n', merge_labels=True)
    assert own.classes == tuple(sorted(('cat', one)))
    assert own.jobs[0].events[0].label == own.jobs[0].labels[0] == own.jobs[1].labels[1] == own.jobs[2].labels[0]
    assert own.remarks == (f'1 spellings of labels merged (with their number): {two!r} as {one!r} (2)',)


def test_spaces_around_the_bar_are_no_spelling(read):
    assert read(CLIPS + 'a,a.mp4,,,train,dog | cat\nb,b.mp4,,,test,cat|dog\n').classes == ('cat', 'dog')


def test_merged_labels_of_one_clip_are_one(read):
    own = read(CLIPS + 'a,a.mp4,,,train,dog|Dog\nb,b.mp4,,,test,cat\n', merge_labels=True)
    assert own.jobs[0].labels == (1,) and own.classes == ('cat', 'dog') and not own.multi_label


def test_the_classes_file_decides_the_spelling(faults, read):
    clips = CLIPS + 'a,a.mp4,,,train,dog\nb,b.mp4,,,test,cat\n'
    assert read(clips, classes='DOG\ncat\n', merge_labels=True).classes == ('DOG', 'cat')
    (fault,) = faults(clips=clips, classes='Dog\ndog\ncat\n')
    assert fault == (
        "classes.csv: classes 'Dog' and 'dog' differ only by case, Unicode form or spaces; keep one of them"
    )


def test_spellings_of_one_split_are_refused(faults):
    (fault,) = faults(clips=CLIPS + 'a,a.mp4,,,Train,dog\nb,b.mp4,,,train,cat\n')
    assert (
        fault
        == "clips.csv: splits 'Train' and 'train' differ only by case or Unicode form; write one of them everywhere"
    )


def test_a_wrong_label_names_the_nearest_few_of_many(faults):
    classes = ''.join(f'word {number:05d}\n' for number in range(10_000))
    clips = CLIPS + ''.join(f'c{i},a.mp4,,,train,wrod {i + 1234:05d}\n' for i in range(100))
    found = faults(clips=clips, classes=classes)
    assert len(found) == 100 and max(map(len, found)) < 250
    assert "(did you mean 'word 01234' or " in found[0] and found[0].count(' or ') == 2


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        ('../x,a.mp4,,,train,dog', "clips.csv:2: column clip_id: got '../x', expected a name without /, \\"),
        ('a/b,a.mp4,,,train,dog', "column clip_id: got 'a/b'"),
        ('..,a.mp4,,,train,dog', "column clip_id: got '..'"),
        ('a\x07,a.mp4,,,train,dog', "column clip_id: got 'a\\x07'"),
        (',a.mp4,,,train,dog', "column clip_id: got ''"),
        ('a,../a.mp4,,,train,dog', "column video: got '../a.mp4', expected a path inside the videos folder"),
        ('a,x/../../a.mp4,,,train,dog', "column video: got 'x/../../a.mp4'"),
        ('a,/etc/a.mp4,,,train,dog', "column video: got '/etc/a.mp4'"),
        ('a,..\\a.mp4,,,train,dog', 'column video'),
        ('a,,,,train,dog', "column video: got ''"),
        ('a,a.mp4,x,,train,dog', "column start: got 'x', expected seconds of the video, 0 or more, or empty"),
        ('a,a.mp4,-1,,train,dog', "column start: got '-1'"),
        ('a,a.mp4,nan,,train,dog', "column start: got 'nan'"),
        ('a,a.mp4,,inf,train,dog', "column end: got 'inf'"),
        ('a,a.mp4,"1,5",,train,dog', "column start: got '1,5'"),
        ('a,a.mp4,10,10,train,dog', "column end: got '10', expected more than start, 10"),
        ('a,a.mp4,10,5,train,dog', "column end: got '5', expected more than start, 10"),
        ('a,a.mp4,,0,train,dog', "column end: got '0', expected more than start, 0"),
        ('a,a.mp4,,,,dog', "column split: got '', expected a split such as train, val or test"),
        ('a,a.mp4,,,a/b,dog', "column split: got 'a/b'"),
        ('a,a.mp4,,,train,', "column labels: got '', expected one label or several"),
        ('a,a.mp4,,,train,dog|dog', "column labels: got 'dog|dog', expected one label or several different ones"),
        ('a,a.mp4,,,train', 'clips.csv:2: 5 cells, expected 6 as in the header; quote commas'),
        ('a,a.mp4,,,train,dog,cat', 'clips.csv:2: 7 cells, expected 6 as in the header; quote commas'),
        ('a,a.mp4,,,train,"dog', 'not CSV (unexpected end of data)'),
    ],
)
def test_bad_clip(faults, row, expected):
    (fault,) = faults(clips=CLIPS + row + '\n')
    assert expected in fault


def test_missing_column_is_one_fault(faults):
    assert faults(clips='clip_id,video,start,end,labels\na,a.mp4,,,dog\n') == [
        'clips.csv:1: column split is missing; the header has clip_id,video,start,end,labels, expected ' + CLIPS.strip()
    ]


@pytest.mark.parametrize(('text', 'expected'), [('', 'the header has nothing'), (CLIPS, 'holds no clips')])
def test_empty_table(faults, text, expected):
    (fault,) = faults(clips=text)
    assert expected in fault


def test_duplicate_id_names_the_first(faults):
    assert faults(clips=GOOD + 'a,c.mp4,,,test,dog\n') == [
        "clips.csv:4: column clip_id: got 'a', expected an id of its own; line 2 has the same"
    ]


def test_label_outside_the_classes_file(faults):
    (fault,) = faults(classes='Dog\ncat\n', clips=CLIPS + 'a,a.mp4,,,train,dog\n')
    assert fault == (
        "clips.csv:2: column labels: got 'dog', expected labels of the classes file; "
        "'dog' is not in it (did you mean 'Dog'?)"
    )


@pytest.mark.parametrize('text', ['dog\ndog\ncat\n', 'dog\ncat\na|b\n'])
def test_bad_classes_file(faults, text):
    (fault,) = faults(classes=text)
    assert 'is there twice or contains |' in fault


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        ('z,dog,0,1,audio', "events.csv:2: column clip_id: got 'z', expected a clip_id of the clips table"),
        ('a,dgo,0,1,audio', "column label: got 'dgo', expected one of the 2 classes"),
        ('a,dog,-1,1,audio', "column onset: got '-1'"),
        ('a,dog,1,1,audio', "column offset: got '1', expected more than onset, 1"),
        ('a,dog,2,1,audio', "column offset: got '1', expected more than onset, 2"),
        ('a,dog,2,10.5,audio', "column offset: got '10.5', expected seconds from the clip's start, at most 10"),
        ('a,dog,0,1,sound', "column modality: got 'sound', expected one of audio, visual, both"),
    ],
)
def test_bad_event(faults, row, expected):
    (fault,) = faults(events=EVENTS + row + '\n')
    assert expected in fault


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        ('z,1,dog,0,0,1,1', "boxes.csv:2: column clip_id: got 'z'"),
        ('a,1,Dog,0,0,1,1', "column label: got 'Dog', expected one of the 2 classes (did you mean 'dog'?)"),
        ('a,11,dog,0,0,1,1', "column time: got '11', expected seconds from the clip's start, at most 10"),
        ('a,1,dog,-0.1,0,1,1', "column x0: got '-0.1', expected a fraction of the frame"),
        ('a,1,dog,0,0,1,1.01', "column y1: got '1.01', expected a fraction of the frame, 0 or more, at most 1"),
        ('a,1,dog,0,0,300,1', "column x1: got '300'"),
        ('a,1,dog,0.5,0,0.5,1', "column x1: got '0.5', expected more than x0, 0.5"),
        ('a,1,dog,0,0.7,1,0.5', "column y1: got '0.5', expected more than y0, 0.7"),
    ],
)
def test_bad_box(faults, row, expected):
    (fault,) = faults(boxes=BOXES + row + '\n')
    assert expected in fault


def test_presence(read):
    own = read(presence=PRESENCE + 'a,cat,audio,voice_over|background_music\na,dog,both,\nb,cat,visual,\n')
    assert [job.presence for job in own.jobs] == [
        (records.Presence(0, 'audio', ('voice_over', 'background_music')), records.Presence(1, 'both')),
        (records.Presence(0, 'visual'),),
    ]


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        ('z,dog,audio,', "presence.csv:2: column clip_id: got 'z'"),
        ('a,dgo,audio,', "column label: got 'dgo'"),
        ('a,dog,A,', "column modality: got 'A', expected one of audio, visual, both"),
        ('a,dog,audio,voice over', "column flags: got 'voice over', expected words joined by |, or nothing"),
    ],
)
def test_bad_presence(faults, row, expected):
    (fault,) = faults(presence=PRESENCE + row + '\n')
    assert expected in fault


def test_all_faults_are_collected_and_twenty_shown(read):
    lines = ''.join(f'c{i},a.mp4,x,y,train,dog\n' for i in range(15))
    with pytest.raises(rows.TableError) as caught:
        read(CLIPS + lines)
    assert len(caught.value.faults) == 30
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == '... and 10 more faults'


def test_unreadable_files(tmp_path, faults):
    with pytest.raises(rows.TableError, match=r'nowhere.csv: cannot be read \(No such file or directory\)'):
        tables.read_tables(tmp_path / 'nowhere.csv')
    (fault,) = faults(clips=CLIPS.encode() + 'a,a.mp4,,,train,Tür'.encode('latin-1'))
    assert 'is not UTF-8; save the table as UTF-8' in fault

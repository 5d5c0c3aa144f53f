"""Mutated tables, read as data_prep.folder reads them: no traceback, and every row is used or a fault names its file.

$STATTN_FUZZ is the number of tables of the slow test (default: 300), $STATTN_FUZZ_SEED their seed.
"""

import collections
import csv
import io
import json
import os
import pathlib
import re

import commands
import numpy as np
import pytest
import runs

from data_prep import folder, rows, tables

SEED = int(os.environ.get('STATTN_FUZZ_SEED', 0))
TABLES = {
    'clips': 'clip_id,video,start,end,split,labels,notes\n'
    'a,scene.mp4,,,train,dog,\nb,scene.mp4,0.5,6,train,cat|dog,"two, of them"\nc,scene.mp4,1,,train,cat,\n'
    'd,scene.mp4,,5.25,test,bird,\ne,scene.mp4,,6,test,dog|bird,ok\nf,scene.mp4,2,6,test,cat,\n',
    'events': 'clip_id,label,onset,offset,modality\n'
    'a,dog,0,1.5,both\nb,cat,1,2,audio\nb,dog,0,0.5,visual\ne,bird,2,6,both\nf,cat,0,4,audio\n',
    'boxes': 'clip_id,time,label,x0,y0,x1,y1\n'
    'a,0.5,dog,0,0,1,1\nb,1.5,cat,0.25,0.5,0.75,1\ne,3,bird,.1,.2,.3,.4\nf,1,cat,1e-2,0,0.5,0.5\n',
    'presence': 'clip_id,label,modality,flags\na,dog,both,\nb,cat,audio,voice_over|background_music\nd,bird,visual,\n',
    'classes': 'bird\ncat\ndog\n',
}
ROWS = {'clips': 'jobs', 'events': 'events', 'boxes': 'boxes', 'presence': 'presence'}
CELLS = (
    '', ' ', 'nan', 'inf', '-inf', '1e999', '-0', '-1', '0x10', '1_000', '1,5', '½', '٣', '1e-320', '9' * 400, 'NULL',
    '#REF!', '../../etc/passwd', '/etc/passwd', 'C:\\a.mp4', 'a\x00b', 'a\nb', '\u202edog', 'dog\u200b', 'DOG', 'dog ',
    'do\u0301g', '|', 'dog||cat', 'dog|dog', '"', '""', "'", ';', '\t', '\ufeff', '\U0001f415', 'x' * 140_000, '%s',
    '{0}', '=1+1', 'True', 'train ', 'tra-in', '\x1b[2J',
)  # fmt: skip


def _cell(text, rng):
    """Replaces a cell by another content, quoted or not."""
    lines = [line.split(',') for line in text.split('\n')]
    line = lines[rng.integers(len(lines))]
    cell = CELLS[rng.integers(len(CELLS))]
    line[rng.integers(len(line))] = f'"{cell}"' if rng.random() < 0.3 else cell
    return '\n'.join(map(','.join, lines))


def _byte(text, rng):
    content = bytearray(text.encode())
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(len(content))] = rng.integers(256)
    return bytes(content)


def _removed(text, rng):
    begin, end = np.sort(rng.integers(0, len(text), 2))
    return text[:begin] + text[end:]


def _inserted(text, rng):
    at = rng.integers(len(text))
    return (
        text[:at] + rng.choice(['"', ',', '\n', '\r', '\x00', '\ufeff', '\u2028', '\xa0', '|', '""', ',,,']) + text[at:]
    )


def _quoted(text, rng):
    ends = [0, *(match.end() for match in re.finditer('[,\n]', text))]
    begin, end = np.sort(rng.choice(ends, 2, replace=False))
    return f'{text[:begin]}"{text[begin : end - 1]}"{text[end - 1 :]}'


def _lines(text, rng):
    """Repeats, drops or moves lines."""
    lines = text.split('\n')
    return '\n'.join(lines[i] for i in rng.integers(0, len(lines), len(lines)))


def _columns(text, rng):
    """Puts the columns into another order and drops or repeats some."""
    table = list(csv.reader(io.StringIO(text)))
    order = rng.permutation(len(table[0])) if rng.random() < 0.5 else rng.integers(0, len(table[0]), len(table[0]))
    return '\n'.join(','.join(row[i] for i in order) for row in table if row)


def _form(text, rng):
    """Changes line ends, delimiter or encoding."""
    kinds = [
        lambda: text.replace('\n', '\r\n'),
        lambda: text.replace('\n', '\r'),
        lambda: text.replace(',', ';'),
        lambda: text.replace(',', '\t'),
        lambda: text.replace(',', ', '),
        lambda: text.encode('utf-16'),
        lambda: ('\xe9' + text).encode('latin-1'),
        lambda: '\ufeff' + text,
        lambda: text.upper(),
        lambda: '',
        lambda: text.split('\n')[0],
        lambda: text + '\n\n  \n',
    ]
    return kinds[rng.integers(len(kinds))]()


KINDS = (_cell, _byte, _removed, _inserted, _quoted, _lines, _columns, _form)


def write(place, number):
    """Writes the five tables, one of them mutated; returns their paths by name, and the name of that one."""
    rng = np.random.default_rng([SEED, number])
    name = str(rng.choice(list(TABLES), p=[0.4, 0.2, 0.15, 0.15, 0.1]))
    content = KINDS[rng.integers(len(KINDS))](TABLES[name], rng)
    if isinstance(content, str) and rng.random() < 0.2 and len(content) > 1:
        content = KINDS[rng.integers(5)](content, rng)
    paths = {key: pathlib.Path(place, f'{key}.csv') for key in TABLES}
    for key, text in TABLES.items():
        paths[key].write_text(text)
    paths[name].write_bytes(content.encode() if isinstance(content, str) else content)
    return paths, name


def count(path):
    """Returns the number of rows of a table below its header, blank lines left out."""
    text = path.read_bytes().decode().removeprefix('\ufeff')
    return sum(bool(row) for row in csv.reader(io.StringIO(text, newline=''))) - 1


def outcome(paths, name):
    """Reads the tables; returns 'used' or 'named', and asserts that no row was lost."""
    try:
        own = tables.read_tables(*(paths[key] for key in ('clips', 'events', 'boxes', 'classes', 'presence')))
    except rows.TableError as error:
        assert error.faults and all(fault.startswith(str(paths[name].parent)) for fault in error.faults)
        assert all(len(line) < 1000 and line.isprintable() for line in str(error).splitlines()), str(error)[:2000]
        return 'named'
    used = {'clips': len(own.jobs)}
    used |= {key: sum(len(getattr(job, field)) for job in own.jobs) for key, field in ROWS.items() if key != 'clips'}
    assert used == {key: count(paths[key]) for key in ROWS}
    return 'used'


@pytest.mark.parametrize('number', range(60))
def test_every_row_of_a_mutated_table_is_used_or_named(number, tmp_path):
    outcome(*write(tmp_path, number))


@pytest.mark.slow
def test_every_row_of_many_mutated_tables_is_used_or_named(tmp_path):
    found, bad = collections.Counter(), {}
    for number in range(int(os.environ.get('STATTN_FUZZ', 300))):
        paths, name = write(tmp_path, number)
        try:
            found[outcome(paths, name), name] += 1
        except Exception as error:
            bad[number] = f'{name}: {type(error).__name__}: {str(error)[:300]}'
    print(dict(found))
    assert not bad
    assert min(sum(n for (kind, _), n in found.items() if kind == wanted) for wanted in ('used', 'named')) > 10


@pytest.mark.slow
def test_the_command_prepares_the_rows_of_a_mutated_table_or_names_them(tmp_path, capsys):
    runs.make_video(tmp_path / 'scene.mp4', 0)
    codes = collections.Counter()
    for number in range(int(os.environ.get('STATTN_FUZZ', 300)) // 10):
        paths, _ = write(tmp_path, number)
        out = tmp_path / f'out{number}'
        flags = [f'--{name}={path}' for name, path in paths.items()]
        code, printed, errors = commands.run(
            folder, capsys, f'--videos={tmp_path}', f'--out={out}', *flags, '--segments=6', '--short_side=32'
        )
        codes[code] += 1
        if code == 0:
            splits = json.loads((out / 'prepare_report.json').read_text())['splits']
            assert sum(split['wanted'] for split in splits.values()) == count(paths['clips']), number
        else:
            assert errors and errors[0].startswith('error: '), (number, printed)
    print(dict(codes))
    assert codes[0] and codes[2] and not codes.keys() - {0, 1, 2}

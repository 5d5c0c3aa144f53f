"""Tests of rows.py.

What is written is read back, files without a header and with other delimiters are read, and faults come with their
line.
"""

import csv

import pytest

from data_prep import rows


def cells(path, columns, **options):
    with rows.collect() as faults:
        return [
            (row.line, tuple(row.cells[column] for column in columns))
            for row in rows.read_rows(path, columns, faults, **options)
        ]


def test_written_rows_are_read_back(tmp_path):
    content = [('-J2WJaG1Dd4', 'Male speech, man speaking', 0.1), ('a"b', None, 1 / 3)]
    rows.write_rows(tmp_path / 'x.csv', ('id', 'label', 'time'), content)
    expected = [tuple('' if cell is None else str(cell) for cell in row) for row in content]
    assert [row for _, row in cells(tmp_path / 'x.csv', ('id', 'label', 'time'))] == expected
    assert float(expected[1][2]) == 1 / 3


def test_no_header_crlf_and_quotes_as_data(tmp_path):
    (tmp_path / 'x.txt').write_bytes(b'Frying (food)&"a&good\r\n\r\nRodents, rats, mice&b&good\r\n')
    found = cells(
        tmp_path / 'x.txt', ('category', 'id', 'quality'), delimiter='&', header=False, quoting=csv.QUOTE_NONE
    )
    assert found == [(1, ('Frying (food)', '"a', 'good')), (3, ('Rodents, rats, mice', 'b', 'good'))]


def test_faults_are_collected_and_raised_at_the_end(tmp_path):
    (tmp_path / 'x.txt').write_text('a,1\nb\nc,x\n')
    with pytest.raises(rows.TableError) as caught, rows.collect() as faults:
        numbers = [
            row.number('n', 'a number', least=0)
            for row in rows.read_rows(tmp_path / 'x.txt', ('id', 'n'), faults, header=False)
        ]
        assert numbers == [1.0, None]
    assert [fault.split('x.txt:')[1] for fault in caught.value.faults] == [
        '2: 1 cells, expected 2 (id,n); quote commas',
        "3: column n: got 'x', expected a number",
    ]


def test_lines(tmp_path):
    (tmp_path / 'x.txt').write_bytes(b'\xef\xbb\xbfone\r\n\r\n two \r\n')
    with rows.collect() as faults:
        assert rows.read_lines(tmp_path / 'x.txt', 'lines', faults) == ['one', 'two']
    with pytest.raises(rows.TableError, match='expected a clip a line'), rows.collect() as faults:
        assert rows.read_lines(tmp_path / 'none.txt', 'a clip a line', faults) == []

"""progress.py: what the line says, and when it is printed."""

import pytest

from stattn_jax import progress


@pytest.fixture
def clock(monkeypatch):
    """The time that progress.py reads, as a list of one number."""
    now = [0.0]
    monkeypatch.setattr(progress.time, 'perf_counter', lambda: now[0])
    return now


def test_the_time_before_the_first_items_does_not_count(clock):
    line = progress.ProgressLine('preparing own', 100, done=20)
    # Compiling takes a minute; after that, an item takes two seconds.
    clock[0] = 60.0
    line.add(1)
    assert line.line(60.0) == 'preparing own: 21/100 clips'
    clock[0] = 80.0
    line.add(10)
    assert line.line(80.0) == 'preparing own: 31/100 clips, 2:18 left'


def test_a_log_gets_few_lines_and_short_work_none(clock, capsys):
    line = progress.ProgressLine('evaluating val', 1000)
    for second in range(10):
        clock[0] = float(second)
        line.add(1)
    assert capsys.readouterr().err == ''
    for second in range(10, 100):
        clock[0] = float(second)
        line.add(1)
    line.clear()
    printed = capsys.readouterr().err.splitlines()
    assert printed == [f'evaluating val: {n + 1}/1000 clips, {left} left' for n, left in
                       ((10, '16:29'), (40, '15:59'), (70, '15:29'))]  # fmt: skip


def test_a_terminal_has_one_line_that_ends_clear(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, 'isatty', lambda: True)
    line = progress.ProgressLine('x', 3, 'windows')
    for second in range(3):
        clock[0] = float(second)
        line.add(1)
    line.note('a worker died')
    assert capsys.readouterr().err == ('\rx: 1/3 windows\x1b[K\rx: 2/3 windows, 0:01 left\x1b[K\r\x1b[Ka worker died\n')


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.4, '0:00'), (59.6, '1:00'), (754, '12:34'), (12309, '3:25:09'), (176400, '2d 01:00:00')],
)
def test_durations(seconds, text):
    assert progress.format_seconds(seconds) == text

"""Tests cli.py: only Beam receives what follows `--`, and --require is a fraction or a number of clips."""

import pytest
from absl import flags

from data_prep import cli


def _exit_code(*words, runner=True):
    """Runs a command with one positional argument; returns its exit code and the arguments that main received."""
    flag_values, got = flags.FlagValues(), []
    if runner:
        flags.DEFINE_enum('runner', 'local', ['local', 'beam'], '', flag_values=flag_values)

    def main(arguments):
        got.extend(arguments)
        if runner:
            got.append(cli.beam_options(flag_values.runner, arguments[1:]))

    return cli.exit_code(['command', *words], main, flag_values, 'What it does.', positional=1), got


@pytest.mark.parametrize(
    ('words', 'options'),
    [
        (['a'], None),
        (['a', '--runner=beam'], []),
        (['a', '--runner=beam', '--'], []),
        (['a', '--runner=beam', '--', '--runner=FlinkRunner', '-h'], ['--runner=FlinkRunner', '-h']),
    ],
)
def test_beam_options(words, options):
    code, got = _exit_code(*words)
    assert code == 0
    assert got == ['a', *(options or []), options]


@pytest.mark.parametrize(
    ('words', 'runner', 'message'),
    [
        (['a', '--', '--x=1'], True, "arguments after -- are for Beam; give --runner=beam, or leave out '--x=1'"),
        (
            ['a', '--runner=beam', '--runner', 'local'],
            True,
            '--runner is given twice, beam and local; expected once; --help lists the flags',
        ),
        (['a', '--', '--x=1'], False, 'this command runs without Beam and passes nothing on; leave out -- --x=1'),
        (['--runner=beam', '--', 'a'], True, 'got 0 positional arguments [], expected 1'),
        (
            ['a', '--runner=spark'],
            True,
            'flag --runner=spark: value should be one of <local|beam>; --help lists the flags',
        ),
    ],
)
def test_wrong_use_is_one_line(words, runner, message, capsys):
    code, _ = _exit_code(*words, runner=runner)
    assert code == 2
    assert capsys.readouterr().err == f'error: {message}\n'


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('0.9', 0.9),
        ('.5', 0.5),
        ('90%', 0.9),
        ('33.3%', 0.333),
        ('1.0', 1.0),
        ('100%', 1.0),
        ('1', 1),
        ('14000', 14000),
    ],
)
def test_require(text, value):
    parsed = cli.parse_require(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize('text', ['', '0', '0.0', '0%', '1.5', '101%', '-3', '-0.5', '1e4', 'most', '9 %', '½', '٣'])
def test_require_that_is_neither(text):
    with pytest.raises(cli.UsageError) as caught:
        cli.parse_require(text)
    assert str(caught.value) == (
        f'--require={text}: give a fraction of each split (0.9 or 90%, at most 1.0) or a number of clips (14000)'
    )

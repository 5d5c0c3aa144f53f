"""Tests of flag_once.py: flags that are given twice, in every form."""

import pytest
from absl import flags

from stattn_jax import flag_once


@pytest.fixture
def values():
    made = flags.FlagValues()
    flags.DEFINE_string('out', None, '', flag_values=made)
    flags.DEFINE_bool('square', True, '', flag_values=made)
    flags.DEFINE_multi_string('video', None, '', flag_values=made)
    flags.DEFINE_list('files', [], '', flag_values=made)
    return made


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['--out=a', '--out=b'], "--out is given twice, 'a' and 'b'"),
        (['--out', 'a', '-out=a'], "--out is given twice, 'a' and 'a'"),
        (['--square', '--nosquare'], '--square is given twice; '),
        (['--nosquare', 'x', '--square=true'], "--square is given twice, 'true'"),
        (['--files=a', '--files=b'], "--files is given twice, 'a' and 'b'"),
        (['--unknown=1', '--unknown=1'], '--unknown is given twice'),
    ],
)
def test_a_flag_twice_is_refused(values, words, expected):
    with pytest.raises(flags.Error) as caught:
        flag_once.check_once(['command', *words], values)
    assert expected in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'words',
    [
        ['--video=a', '--video=b', '--out=a'],
        ['--out', 'out', 'out'],
        ['--square', '--out=--square'],
        ['--out=a', '--', '--out=b'],
        ['-', '--out=a'],
        ['--out'],
        ['--config.eval.splits=val', '--config.eval.splits=test'],
    ],
)
def test_other_words_are_no_flags(values, words):
    flag_once.check_once(['command', *words], values)

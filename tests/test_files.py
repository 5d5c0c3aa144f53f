"""files.py: a file appears whole or not at all, whatever goes wrong while it is written."""

import pytest

from stattn_jax import files


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / 'a.bin'
    with files.whole_file(path) as file:
        file.write(b'12')
        assert not path.exists()
    assert path.read_bytes() == b'12' and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'old')
    with pytest.raises(error), files.whole_file(path) as file:
        file.write(b'new')
        raise error
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / 'a.bin'
    with files.whole_path(path) as one, files.whole_path(path) as other:
        one.write_bytes(b'1')
        other.write_bytes(b'2')
    assert path.read_bytes() == b'1' and list(tmp_path.iterdir()) == [path]

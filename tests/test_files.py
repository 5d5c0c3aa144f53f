"""files.py: a file appears whole or not at all, whatever goes wrong, and the error says which."""

import errno
import os
import pickle
import subprocess
import sys

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


def test_the_next_writer_removes_the_file_of_a_killed_one_but_not_of_a_running_one(tmp_path):
    path = tmp_path / 'a.bin'
    program = (
        'import os, signal, sys\nfrom stattn_jax import files\n'
        'with files.whole_file(sys.argv[1]) as file:\n'
        '    file.write(b"1")\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    subprocess.run([sys.executable, '-c', program, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    with files.whole_path(path) as one:
        assert not left.exists()
        with files.whole_path(path) as other:
            assert one.exists()
            other.write_bytes(b'2')
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_and_the_fix(tmp_path, full_disk):
    path = tmp_path / 'a.csv'
    full_disk(lambda name: True)
    with pytest.raises(OSError) as caught, files.whole_text(path) as file:
        file.write('a,b\r\n')
    assert files.reason(caught.value) == (
        f'{path}: No space left on device; free some space, or use another disk, and run the same command again'
    )
    assert list(tmp_path.iterdir()) == []
    # Worker processes send their errors as pickles.
    assert files.reason(pickle.loads(pickle.dumps(caught.value))) == files.reason(caught.value)


@pytest.mark.parametrize('path, number', [('file/x/y', errno.ENOTDIR), ('file', errno.EEXIST)])
def test_a_place_that_cannot_be_a_folder(tmp_path, path, number):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError) as caught:
        files.make_folder(tmp_path / path)
    assert caught.value.errno == number and str(tmp_path) in files.reason(caught.value)


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='no /proc')
def test_a_folder_in_which_no_file_can_be_made(tmp_path):
    with pytest.raises(OSError) as caught:
        files.make_folder('/proc/self/fd')
    assert files.reason(caught.value).startswith('/proc/self/fd: ')
    assert files.make_folder(tmp_path / 'a' / 'b').is_dir() and list((tmp_path / 'a' / 'b').iterdir()) == []


def test_errors_of_other_libraries_are_recognised_by_their_text_or_their_cause():
    text = 'RESOURCE_EXHAUSTED: Failed to write 153189 bytes to file 23: No space left on device [os_error_code]'
    found = files.of_file_system(ValueError(text), 'run')
    assert (found.errno, found.filename) == (errno.ENOSPC, 'run')
    try:
        try:
            raise PermissionError(errno.EACCES, 'x', 'y')
        except OSError as error:
            raise RuntimeError('save failed') from error
    except RuntimeError as error:
        found = files.of_file_system(error, 'run')
    assert isinstance(found, PermissionError) and files.reason(found).startswith('run: Permission denied; ')
    assert files.of_file_system(ValueError('the shape differs'), 'run') is None

"""Runs a command of data_prep in this process and reads its output, for the tests of the published data sets."""

import json

from data_prep import cli, verify
from stattn_jax.data import source


def run(module, capsys, *flags):
    """Runs `python -m data_prep.MODULE FLAGS`; returns (exit code, standard output, the error lines)."""
    module.FLAGS.unparse_flags()
    capsys.readouterr()
    workers = [] if any(flag.startswith('--workers=') for flag in flags) else ['--workers=0']
    code = cli.exit_code([module.__name__, *workers, *flags], module.main, module.FLAGS, module.__doc__)
    printed = capsys.readouterr()
    return code, printed.out, [line for line in printed.err.splitlines() if line.startswith('error')]


def records(out):
    """Verifies a data set and returns all its records by clip_id."""
    assert verify.verify(out).problems == []
    splits = source.DatasetInfo.load(out).splits
    return {record.clip_id: record for split in splits for record in source.RecordSource(out, split)}


def report(out):
    return json.loads((out / 'prepare_report.json').read_text())


def remark(remarks, *words):
    """Returns the remark that contains all these words; there must be exactly one."""
    (found,) = [line for line in remarks if all(word in line for word in words)]
    return found

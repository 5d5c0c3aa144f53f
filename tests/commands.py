"""Runs a command of data_prep in this process, and reads what it made: for the tests of the published sets."""

import json

from data_prep import cli, verify
from stattn_jax.data import source


def run(module, capsys, *flags):
    """(exit code, what was printed, the error lines) of `python -m data_prep.MODULE FLAGS`."""
    module.FLAGS.unparse_flags()
    capsys.readouterr()
    code = cli.exit_code([module.__name__, '--workers=1', *flags], module.main, module.FLAGS, module.__doc__)
    printed = capsys.readouterr()
    return code, printed.out, [line for line in printed.err.splitlines() if line.startswith('error')]


def records(out):
    """Every record of a data set by clip_id; checks the set on the way."""
    assert verify.verify(out).problems == []
    splits = source.DatasetInfo.load(out).splits
    return {record.clip_id: record for split in splits for record in source.RecordSource(out, split)}


def report(out):
    return json.loads((out / 'prepare_report.json').read_text())


def remark(remarks, *words):
    """The one remark that has these words."""
    (found,) = [line for line in remarks if all(word in line for word in words)]
    return found

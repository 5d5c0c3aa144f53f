"""The study: `python -m stattn_jax.study --config=configs/study.py[:quick] --workdir=DIR [--workers=N]`.

Trains the networks that are missing, measures them, and writes DIR/report.html, results.md, study.json, tables/ and
figures/. A stopped study (Ctrl-C, SIGTERM, a crash) is resumed by the same command. Exit codes: 0 done, or stopped by
SIGTERM; 1 a network failed; 2 wrong use; 130 Ctrl-C.
"""

import os
import pathlib
import signal
import sys

import jax
from absl import flags, logging

from stattn_jax import command, files, names, run
from stattn_jax.runtime import perf
from stattn_jax.study import jobs, plan, summary, worker

CONFIG = command.ConfigFlag(
    lambda: plan.FIELDS, 'configs/study.py', 'The name study or study:quick, or a file like configs/study.py.'
)


def make_flags() -> flags.FlagValues:
    """Returns the command's flags, not yet parsed."""
    values = flags.FlagValues()
    flags.DEFINE_string('workdir', None, 'Where the study lives; what is there already is kept.', flag_values=values)
    flags.DEFINE_integer(
        'workers',
        None,
        'Networks at a time. Default: one per CPU; one on an accelerator.',
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        'only', None, 'Train and measure this one, as VARIANT/ROW-SEED, in this process.', flag_values=values
    )
    flags.mark_flag_as_required('workdir', values)
    return values


def main(argv: list[str] | None = None) -> int:
    """Parses the flags, trains and measures the networks, writes the results, and returns the exit code."""
    argv = sys.argv if argv is None else argv
    logging.set_verbosity('warning')

    def body(values):
        workdir = pathlib.Path(values.workdir)
        entries = plan.entries(values.config, workdir)
        if values.only:
            return _one(values.config, workdir, entries, values.only)
        return _all(values, workdir, entries, argv[1:])

    return command.run(argv, __doc__, make_flags(), body, config=CONFIG)


def _one(config, workdir: pathlib.Path, entries: list[plan.Entry], name: str) -> int:
    """Trains and measures one network; a stop signal ends it after its training has saved a checkpoint."""
    known = {entry.name: entry for entry in entries}
    if name not in known:
        raise run.RunError(f'--only={name} is no entry of this study; {names.expected(name, known, "entries")}')
    perf.enable_compile_cache(str(workdir / 'compiled'))
    worker.work(known[name], config.measure)
    return 0


def _all(values, workdir: pathlib.Path, entries: list[plan.Entry], arguments: list[str]) -> int:
    files.make_folder(workdir)
    wall = jobs.WallTime(workdir / 'wall.json')
    jobs.make_data(values.config, workdir)
    waiting = [entry for entry in entries if not jobs.is_done(entry, values.config.measure)]
    accelerated = jax.default_backend() != 'cpu'
    workers = values.workers or (1 if accelerated else os.cpu_count())
    print(f'{len(entries)} networks, {len(entries) - len(waiting)} of them done; {workers} at a time', flush=True)
    work = jobs.Jobs(arguments, workers, threads=accelerated or workers == 1)
    failed, stopped = work.work(waiting, len(entries), wall)
    seconds = wall.keep()
    if stopped is not None:
        print('stopped; run the same command again to go on', flush=True)
        return 130 if stopped == signal.SIGINT else 0
    summary.write(values.config, workdir, entries, seconds)
    print(f'\nthe report is {workdir / "report.html"}, its tables are in {workdir / "results.md"}', flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())

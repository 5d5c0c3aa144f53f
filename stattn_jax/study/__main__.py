"""The study: `python -m stattn_jax.study --config=configs/study.py[:quick|:own] --workdir=DIR [--workers=N]`.

Trains the networks that are missing, chooses their learning rates on validation clips, measures them on test clips, and
writes DIR/report.html, appendix.html, the same as Markdown, study.json, tables/ and figures/. A stopped study (Ctrl-C,
SIGTERM, a crash) is resumed by the same command. Exit codes: 0 done, or stopped by SIGTERM; 1 a network failed; 2 wrong
use; 130 Ctrl-C.
"""

import os
import pathlib
import signal
import sys

import jax
from absl import flags, logging

from stattn_jax import command, files, names, run
from stattn_jax.runtime import perf
from stattn_jax.study import choice, data_sets, jobs, plan, summary, worker

CONFIG = command.ConfigFlag(
    lambda: plan.FIELDS,
    'configs/study.py',
    'The name study, study:quick or study:own, or a file like configs/study.py.',
)


def make_flags() -> flags.FlagValues:
    """Returns the command's flags, not yet parsed."""
    values = flags.FlagValues()
    define = command.definers(values)
    define.string('workdir', None, 'The folder of the study; results that it holds already are kept.')
    define.integer('workers', None, 'Networks at a time. Default: one per CPU; one on an accelerator.', lower_bound=1)
    define.string(
        'only', None, 'Only this network, as VARIANT/ROW-SEED, or trial, as VARIANT/ROW-trialN, in this process.'
    )
    flags.mark_flag_as_required('workdir', values)
    return values


def main(argv: list[str] | None = None) -> int:
    """Parses the flags, trains and measures the networks, writes the results, and returns the exit code."""
    argv = sys.argv if argv is None else argv
    logging.set_verbosity('warning')

    def body(values):
        workdir = pathlib.Path(values.workdir)
        trials = plan.trials(values.config, workdir)
        if values.only:
            return _one(values.config, workdir, trials, values.only)
        return _all(values, workdir, trials, argv[1:])

    return command.run(argv, __doc__, make_flags(), body, config=CONFIG)


def _chosen(config, workdir: pathlib.Path, trials: list[plan.Trial]) -> tuple[choice.Scores, list[plan.Entry]]:
    """Returns the scores of the rows all of whose trials are done, and the entries with the values they choose."""
    scores = choice.read(trials)
    return scores, plan.entries(config, workdir, {key: choice.choose(some) for key, some in scores.items()})


def _one(config, workdir: pathlib.Path, trials: list[plan.Trial], name: str) -> int:
    """Trains one trial, or trains and measures one entry; a stop signal ends it after it has saved a checkpoint."""
    expected = [*(trial.name for trial in trials), *plan.names_of_entries(config)]
    if name not in expected:
        raise run.RunError(f'--only={name} is no part of this study; {names.expected(name, expected, "names")}')
    known: dict[str, plan.Trial | plan.Entry] = {trial.name: trial for trial in trials}
    known |= {entry.name: entry for entry in _chosen(config, workdir, trials)[1]}
    if name not in known:
        raise run.RunError(f'--only={name} waits for the trials of its row; run the study without --only')
    perf.enable_compile_cache(str(workdir / 'compiled'))
    worker.work(known[name])
    return 0


def _all(values, workdir: pathlib.Path, trials: list[plan.Trial], arguments: list[str]) -> int:
    files.make_folder(workdir)
    wall = jobs.WallTime(workdir / 'wall.json')
    data_sets.make(values.config, workdir)
    expected = plan.names_of_entries(values.config)
    accelerated = jax.default_backend() != 'cpu'
    workers = values.workers or (1 if accelerated else len(jobs.cores()) or os.cpu_count())
    processes = jobs.Jobs(arguments, workers, one_core=not accelerated and workers > 1)
    _, entries = _chosen(values.config, workdir, trials)
    counts = [sum(map(plan.is_done, some)) for some in (trials, entries)]
    print(
        f'{len(trials)} trials, {counts[0]} of them done; {len(expected)} networks, {counts[1]} of them done; '
        f'{workers} at a time',
        flush=True,
    )
    later = [name.partition('/')[0] for name in expected[counts[1] :]]
    stopped = processes.work([trial for trial in trials if not plan.is_done(trial)], sum(counts), later, wall)
    scores, entries = _chosen(values.config, workdir, trials)
    if stopped is None:
        waiting = [entry for entry in entries if not plan.is_done(entry)]
        stopped = processes.work(waiting, len(trials) + len(entries) - len(waiting), [], wall)
    seconds = wall.keep()
    if stopped is not None:
        print('stopped; run the same command again to go on', flush=True)
        return 130 if stopped == signal.SIGINT else 0
    summary.write(values.config, workdir, entries, scores, seconds)
    print(f'\nthe report is {workdir / "report.html"}; all tables are in {workdir / "appendix.html"}', flush=True)
    return 0 if len(entries) == len(expected) and all(map(plan.is_done, entries)) else 1


if __name__ == '__main__':
    sys.exit(main())

"""`python -m stattn_jax.benchmark --topology=...`: compiles every combination of the flags for described devices.

Every row is printed and written as soon as it is there, and a repeated command goes on after the rows of its --out.
"""

import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import jax
from absl import flags

from stattn_jax import command, files, progress
from stattn_jax.benchmark import cost_model, model, topology


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this part of the benchmark."""
    define = command.definers(values)
    define.list(
        'topology', [], f'TPUs or GPUs to compile for without having them, instead of measuring: {topology.EXAMPLES}.'
    )
    define.bool('per_chip', False, 'With --topology, --batches are of one chip, not of all together.')
    define.bool('largest', False, 'With --topology, search the largest batch that fits, from --batches on.')
    define.float(
        'effort',
        0.0,
        "With --topology, the compiler's effort: 0 as in a training, -1 in a tenth of the time; memory and bytes are "
        'then upper limits.',
        lower_bound=-1.0,
        upper_bound=1.0,
    )
    define.float(
        'core_clips',
        None,
        'With --topology, the clips that one core of a host reads and decodes in a second, as benchmarks.storage '
        'measures them; prints a plan for 1 to 256 chips.',
        lower_bound=1e-3,
    )


@dataclasses.dataclass(frozen=True)
class Compilation:
    """A slice and a case to compile for it, at an effort; `largest` searches the largest batch from the case's on."""

    name: str
    where: cost_model.Slice
    case: model.Case
    effort: float
    largest: bool

    @property
    def key(self) -> list[Any]:
        """Returns the fields that distinguish the job from others, in JSON types."""
        return [self.where.chip, list(self.where.sides), *dataclasses.astuple(self.case), self.effort, self.largest]


def jobs(values: flags.FlagValues, cases: list[model.Case]) -> list[Compilation]:
    """Returns every combination of slices and cases, all checked before the first is compiled."""
    # The described devices are none of JAX's, which otherwise would look for TPUs and GPUs of this computer.
    jax.config.update('jax_platforms', 'cpu')
    found = []
    for name in values.topology:
        where = topology.parse(name)
        topology.devices(where)
        for case in cases:
            if case.mode == 'fed':
                raise command.RunError('--modes has fed, which measures; leave it out, or leave out --topology')
            if values.per_chip:
                case = dataclasses.replace(case, batch=case.batch * where.chips)
            if case.batch % where.chips:
                raise command.RunError(
                    f'--topology={name} has {where.chips} chips, over which {case.batch} clips do not split; '
                    f'expected a multiple of {where.chips}, or --per_chip'
                )
            found.append(Compilation(name, where, case, values.effort, values.largest))
    return found


def run(values: flags.FlagValues, data: model.Data, found: list[Compilation]) -> int:
    """Compiles all jobs, prints their lines, writes --out after each, and returns the exit code.

    A program that the compiler rejects is reported, and the others follow; then the exit code is 1.
    """
    content = _content(values, data) | {'done': [], 'rows': []}
    if values.out and pathlib.Path(values.out).exists():
        content = _written(values.out, content)
    todo = [job for job in found if job.key not in content['done']]
    if len(todo) < len(found):
        print(f'{values.out} has {len(found) - len(todo)} of {len(found)} programs', file=sys.stderr)
    start, failed = time.perf_counter(), 0
    for done, job in enumerate(todo):
        eta = (time.perf_counter() - start) / done * (len(todo) - done) if done else None
        print(
            f'compiling {done + 1} of {len(todo)}: {job.name}, {job.case.mode}, {job.case.strategy}'
            + ('' if eta is None else f', eta {progress.format_seconds(eta)}'),
            file=sys.stderr,
            flush=True,
        )
        made = []
        try:
            for row in _rows(values, data, job):
                print('\n'.join(_lines(values, row)), flush=True)
                made.append(row)
        except jax.errors.JaxRuntimeError as error:
            command.fail(f'{job.name}, {job.case.mode}, {job.case.strategy}: {error}', 1)
            failed += 1
            continue
        content['rows'] += made
        content['done'].append(job.key)
        if values.out:
            with files.whole_path(values.out) as path:
                path.write_text(json.dumps(content, indent=1) + '\n')
    if failed:
        print(f'{failed} of {len(todo)} programs did not compile', file=sys.stderr)
    return 1 if failed else 0


def _rows(values, data, job) -> Iterator[dict[str, Any]]:
    arguments = values.config, data, job.case, job.where, job.effort
    if not job.largest:
        yield topology.measure(*arguments)
    else:
        yield from topology.largest_batch(*arguments)


def _lines(values, row) -> Iterator[str]:
    if row.get('largest'):
        yield f'  the largest batch found: {row["batch"]}, {row["batch"] // row["chips"]} a chip'
        return
    yield from topology.lines(row)
    if values.core_clips and row['fits'] and row['mode'] == 'train' and row['chips'] > 1:
        clips = row['batch'] // row['chips']
        plan = cost_model.plan(topology.work_of(row), row['chip'], clips=clips, clips_per_core=values.core_clips)
        row['plan'] = {'clips_per_core': values.core_clips, 'rows': plan}
        yield from topology.plan_lines(plan)


def _versions() -> dict[str, str]:
    """Returns the versions of the compilers that are installed."""
    found = {}
    for name in ('libtpu', 'jax-cuda12-plugin', 'jax-cuda13-plugin'):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _content(values, data) -> dict[str, Any]:
    return {
        'versions': {'python': sys.version.split()[0], 'jax': jax.__version__, **_versions()},
        'data': {'classes': data.classes, 'segments': data.segments, 'mel': list(data.mel)},
        'config': values.config.to_dict(),
    }


def _written(out, content) -> dict[str, Any]:
    """Returns the content of an earlier run with the same config, data and versions; raises RunError for others."""
    try:
        earlier = json.loads(pathlib.Path(out).read_text())
        missing = content.keys() - earlier.keys()
    except (ValueError, AttributeError):
        missing = {'rows'}
    if missing:
        raise command.RunError(f'--out={out} exists and is no file of this command; give another name')
    changed = [
        name for name in ('versions', 'data', 'config') if earlier[name] != json.loads(json.dumps(content[name]))
    ]
    if changed:
        raise command.RunError(
            f'--out={out} has rows of other {", ".join(changed)}; give another name, or delete the file'
        )
    return earlier

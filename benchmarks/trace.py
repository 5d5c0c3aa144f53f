"""Lists the operations that take most of the device's time in a profile, with the code that they come from.

  python -m benchmarks.trace FOLDER [--top=20] [--out=FILE.json]

FOLDER is one of those that `python -m stattn_jax.benchmark --profile=DIR` writes: an xprof trace of three calls and
program.txt, the compiled program, which names the scope of every operation. Exit codes: 0 done; 2 wrong use.
"""

import argparse
import collections
import json
import pathlib
import re
import sys
import warnings
from typing import Any

import jax

PROGRAM = 'program.txt'
# Lines of a device's plane that repeat the events of others, as sums over modules, steps or scopes.
_SUMMARIES = ('XLA Modules', 'Steps', 'Framework Ops', 'Framework Name Scope', 'Source code', 'XLA TraceMe')


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments, prints the table, writes JSON, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('--top', type=int, default=20)
    parser.add_argument('--out', type=pathlib.Path)
    values = parser.parse_args(argv)
    traces = sorted(values.folder.rglob('*.xplane.pb'))
    if not traces:
        print(f'{values.folder} holds no *.xplane.pb; expected a folder of benchmark --profile', file=sys.stderr)
        return 2
    program = values.folder / PROGRAM
    scopes = scopes_of(program.read_text()) if program.exists() else {}
    rows = operations(jax.profiler.ProfileData.from_file(str(traces[-1])), scopes)
    for line in lines(rows, values.top):
        print(line)
    if values.out:
        values.out.write_text(json.dumps(rows, indent=1) + '\n')
    return 0


def scopes_of(program: str) -> dict[str, str]:
    """Returns the scope (jax.named_scope and primitive) of every operation of a compiled program's text."""
    pattern = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', re.MULTILINE)
    return dict(pattern.findall(program))


def operations(profile: Any, scopes: dict[str, str]) -> list[dict[str, Any]]:
    """Returns name, scope, number of events and share of the device's time of every operation, the slowest first."""
    seconds, counts = collections.Counter(), collections.Counter()
    accelerators = [plane for plane in profile.planes if '/device:' in plane.name]
    with warnings.catch_warnings():
        # Under Python 3.12, jaxlib warns when it makes the type of an event's statistics, and aborts the process if the
        # warning is an error (jaxlib 0.12.0).
        warnings.simplefilter('ignore', DeprecationWarning)
        # A CPU has no plane of its own: its operations lie among other events of the host.
        for plane in accelerators or profile.planes:
            for line in plane.lines:
                if line.name.startswith(_SUMMARIES):
                    continue
                for event in line.events:
                    if (name := _name(event, scopes, bool(accelerators))) is not None:
                        seconds[name] += event.duration_ns / 1e9
                        counts[name] += 1
    total = sum(seconds.values()) or 1.0
    return [
        {'name': name, 'scope': scopes.get(name, ''), 'events': counts[name], 'seconds': time, 'share': time / total}
        for name, time in seconds.most_common()
    ]


def _name(event, scopes, on_accelerator: bool) -> str | None:
    """Returns the operation's name in the program, or the kernel's; None for an event that is no operation.

    Kernels of a CUDA graph name the graph as their operation, and the fusion in their own name.
    """
    operation = dict(event.stats).get('hlo_op')
    if on_accelerator and (event.name in scopes or operation is None or str(operation).startswith('command_buffer')):
        return event.name
    return None if operation is None else str(operation)


def lines(rows: list[dict[str, Any]], top: int) -> list[str]:
    """Returns the table as text."""
    total = sum(row['seconds'] for row in rows)
    shown = [f'{len(rows)} operations, {total * 1e3:.2f} ms of device time; the slowest {min(top, len(rows))}:']
    for row in rows[:top]:
        time = f'{row["share"]:7.1%}{row["seconds"] * 1e3:10.3f} ms'
        shown.append(f'{time}{row["events"]:6}  {row["name"][:60]:60}  {row["scope"]}')
    return shown


if __name__ == '__main__':
    sys.exit(main())

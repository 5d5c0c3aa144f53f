"""One of several processes that count the same training step together, each with one CPU device.

growth.py starts them. Each reads its task as JSON from stdin; the first process prints the counts of one device's
program.
"""

import json
import sys

import jax
import ml_collections

from benchmarks import growth


def main() -> None:
    request = json.load(sys.stdin)
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', 1)
    jax.distributed.initialize(request['coordinator'], request['processes'], request['process'])
    measured = growth.counts(
        ml_collections.ConfigDict(request['config']), *request['sizes'], devices=request['processes']
    )
    if request['process'] == 0:
        print(json.dumps(measured))


if __name__ == '__main__':
    main()

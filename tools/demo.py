"""Runs the README's commands one after the other, then prints a table of results.

Usage: `make demo [VIDEO=clip.mp4] [SEED=0]`.
"""

import argparse
import json
import pathlib
import resource
import shlex
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from stattn_jax import score  # noqa: E402  the checkout is not installed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='demo')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--video', help='your own video file, explained too')
    args = parser.parse_args()
    if args.video and not pathlib.Path(args.video).is_file():
        print(f'error: VIDEO={args.video} is not a file; expected the path of a video', file=sys.stderr)
        return 2
    data, workdir = f'{args.out}/data-{args.seed}', f'{args.out}/run-{args.seed}'
    videos = [f'{data}/videos/test_{i:06d}.mp4' for i in range(2)]
    start = time.perf_counter()
    commands = [
        f'-m data_prep.synthetic --out={data} --seed={args.seed} --train=2000 --test=400 --videos=2',
        f'-m stattn_jax.main --config=configs/synthetic.py --workdir={workdir} --config.data.dir={data} '
        f'--config.seed={args.seed}',
        f'-m stattn_jax.explain --workdir={workdir} --out={workdir}/explained --truth={data}/videos '
        + ' '.join(f'--video={shlex.quote(v)}' for v in videos + ([args.video] if args.video else [])),
    ]
    for command in commands:
        print(f'\n$ python {command}', flush=True)
        code = subprocess.run([sys.executable, *shlex.split(command)]).returncode
        if code:
            print(
                f'error: the command above failed with exit code {code}; mend that and run make demo again to go on',
                file=sys.stderr,
            )
            return code
    numbers = json.loads((pathlib.Path(workdir) / 'eval_test.json').read_text())
    print(f'\non {numbers["classification/n"]} test clips:')
    print(score.summary(numbers))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f'{"wall time":<54}{time.perf_counter() - start:>7.0f}s     peak memory of a process {peak:.1f} GB')
    print('\npages to open in a browser (the videos with heat, pictures and tables lie beside them):')
    print(f'  {workdir}/explained/index.html')
    for video in videos + ([args.video] if args.video else []):
        print(f'  {workdir}/explained/{pathlib.Path(video).stem}/explanation.html')
    return 0


if __name__ == '__main__':
    sys.exit(main())

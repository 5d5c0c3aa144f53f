"""Measures whether the finer map points better than the cells, on the test clips with boxes of a data set.

  python -m benchmarks.finer_map --workdir=RUN[,RUN,...] --data=DATA [--clips=300] [--out=FILE.json]

The runs are trainings of one config with several seeds. Each map is of the visual contributions to the clip's label,
from their training means, as explanations and pages show them: cells, the finer map (stattn_jax/explain/half_cells.py),
and each cell divided evenly among its half cells, a control that has small cells and no shifts. Printed are the spatial
pointing game on the label's boxes, at the cell itself and within the usual tolerance, and the share of the positive
evidence inside the boxes; then the finer map less the cells, clip by clip and training by training, with a 95 %
interval over clips and trainings.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

import stattn_jax
from benchmarks import rounds
from data_prep import cli
from stattn_jax import score
from stattn_jax.data import pipeline, records, source
from stattn_jax.explain import half_cells
from stattn_jax.explain.model import Model
from stattn_jax.metrics import bootstrap, energy, localization, paired

FLAGS = flags.FlagValues()
flags.DEFINE_list('workdir', [], 'Run directories.', flag_values=FLAGS)
flags.DEFINE_string('data', None, 'The data set directory.', flag_values=FLAGS)
flags.DEFINE_string('split', 'test', 'The split with the clips.', flag_values=FLAGS)
flags.DEFINE_integer('clips', 300, 'Most clips, the first of the split.', lower_bound=2, flag_values=FLAGS)
flags.DEFINE_string('out', None, 'A JSON file to write.', flag_values=FLAGS)

MAPS = ('cells', 'finer map', 'divided cells')
MEASURES = ('space', 'space, tolerant', 'inside')
BATCH = 4


def maps_of_labels(model: Model, clips: Sequence[records.ClipRecord]) -> dict[str, np.ndarray]:
    """Returns each of MAPS for the first label of each clip: [n t h w] or [n t 2h 2w]."""
    cells, finer = [], []
    for i in range(0, len(clips), BATCH):
        batch = clips[i : i + BATCH]
        arrays, _ = model.record([record.clip for record in batch], BATCH, finer=True)
        for b, record in enumerate(batch):
            cells.append(arrays['visual'][b, record.labels[0]])
            finer.append(arrays['visual_finer'][b, record.labels[0]])
    finer_nthw = np.stack(finer)
    n, t, height, width = finer_nthw.shape
    cells_nthw = np.stack(cells).reshape(n, t, height // 2, width // 2)
    return dict(zip(MAPS, (cells_nthw, finer_nthw, half_cells.average({(0, 0): cells_nthw}))))


def measure(model: Model, clips: Sequence[records.ClipRecord]) -> dict[str, dict[str, np.ndarray]]:
    """Returns each of MEASURES for each of MAPS: float [n], NaN for a clip without a box of its label."""
    fit, seconds = model.trained.config.data.fit, model.spec.segment_seconds
    boxes = [score.box_rows(box for box in record.boxes if box.label == record.labels[0]) for record in clips]
    affines = [pipeline.frame_affine(record.clip.height, record.clip.width, fit) for record in clips]
    found = {}
    for name, maps in maps_of_labels(model, clips).items():
        hits = [
            localization.spatial_hits(maps, boxes, affines, seconds, tau=tau) for tau in (0.0, localization.TOLERANCE)
        ]
        inside, _ = energy.energies(np.maximum(maps, 0), boxes, affines, seconds)
        found[name] = dict(zip(MEASURES, (*hits, inside)))
    return found


def main(_: list[str]) -> None:
    if not FLAGS.workdir or not FLAGS.data:
        raise cli.UsageError('--workdir or --data is missing; give --workdir=RUN[,RUN,...] --data=DATA')
    data = source.RecordSource(FLAGS.data, FLAGS.split)
    clips = [data[i] for i in range(min(FLAGS.clips, len(data)))]
    runs = []
    for number, workdir in enumerate(FLAGS.workdir):
        runs.append(measure(stattn_jax.load(workdir), clips))
        print(f'[{number + 1}/{len(FLAGS.workdir)}] {workdir}', flush=True)
    stacked = {name: {m: np.stack([run[name][m] for run in runs]) for m in MEASURES} for name in MAPS}
    rows = {name: {m: bootstrap.mean(stacked[name][m]) for m in MEASURES} for name in MAPS}
    gains = {m: stacked['finer map'][m] - stacked['cells'][m] for m in MEASURES}
    rows['finer map less cells'] = {m: paired.compare(gain, np.zeros((1, len(clips)))) for m, gain in gains.items()}
    for name, row in rows.items():
        values = [f'{m} {100 * x.value:.1f} % [{100 * x.low:.1f}, {100 * x.high:.1f}]' for m, x in row.items()]
        print(f'{name:>20}: {", ".join(values)}')
    space = rows['cells']['space']
    print(f'{space.n} clips with boxes ({space.skipped} without), {len(runs)} trainings')
    rounds.write(FLAGS.out, {name: {m: x._asdict() for m, x in row.items()} for name, row in rows.items()})


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)

"""Measures whether the finer map points better than the cells, on the test clips with boxes of a data set.

  python -m benchmarks.finer_map --workdir=RUN[,RUN,...] --data=DATA [--clips=300] [--out=FILE.json]

The runs are trainings of one config with several seeds. Each map is of the visual contributions to the clip's label,
from their training means, as explanations and pages show them: cells, the finer map (stattn_jax/explain/half_cells.py),
and each cell divided evenly among its half cells, a control that has small cells and no shifts. Printed are the spatial
pointing game on the label's boxes, at the cell itself and within the usual tolerance, and the share of the positive
evidence inside the boxes, and in these the finer map less the cells, clip by clip and training by training, with 95 %
intervals over clips and trainings.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

import stattn_jax
from benchmarks import rounds
from data_prep import cli
from stattn_jax import score
from stattn_jax.attribution import Map
from stattn_jax.data import records, source
from stattn_jax.explain import half_cells
from stattn_jax.explain.model import Model
from stattn_jax.study import networks, pointing, results
from stattn_jax.study.table_format import Column, Table

FLAGS = flags.FlagValues()
flags.DEFINE_list('workdir', [], 'Run directories.', flag_values=FLAGS)
flags.DEFINE_string('data', None, 'The data set directory.', flag_values=FLAGS)
flags.DEFINE_string('split', 'test', 'The split with the clips.', flag_values=FLAGS)
flags.DEFINE_integer('clips', 300, 'Most clips, the first of the split.', lower_bound=2, flag_values=FLAGS)
flags.DEFINE_string('out', None, 'A JSON file to write.', flag_values=FLAGS)

MAPS = ('cells', 'finer map', 'divided cells')
# The games of study/pointing.py that are printed, by their names here.
GAMES = {'space': 'space', 'space, tolerant': 'space_scaled', 'inside': 'energy'}
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
    """Returns each of GAMES for each of MAPS: float [n], NaN for a clip without a box of its label."""
    truth = [score.truth_of(record) for record in clips]
    targets = pointing.Targets.of(truth, model.trained.config.data.fit, model.spec.segment_seconds)
    found = {}
    for name, maps_nthw in maps_of_labels(model, clips).items():
        visual_nts = maps_nthw.reshape(*maps_nthw.shape[:2], -1)
        games = pointing.games(networks.timed(Map(visual_nts, np.zeros(visual_nts.shape[:2]))), targets)
        found[name] = {measure: games[game] for measure, game in GAMES.items()}
    return found


def table(runs: Sequence[dict[str, dict[str, np.ndarray]]]) -> Table:
    """Returns one row for each game, from `measure` of each training: the maps, and the finer map less the cells."""
    rows = []
    for game in GAMES:
        of_maps = {name: np.stack([run[name][game] for run in runs]) for name in MAPS}
        gain = results.gap(of_maps['finer map'] - of_maps['cells'])
        rows.append((game, *map(results.mean, of_maps.values()), gain))
    columns = (Column('game'), *(Column(name, 'percent') for name in MAPS), Column('finer map less cells', 'points'))
    note = f'Trainings: {len(runs)}. n clips have boxes of their label.'
    return Table('finer_map', '', 'Pointing of the finer map and of cells', note, columns, tuple(rows))


def main(_: list[str]) -> None:
    if not FLAGS.workdir or not FLAGS.data:
        raise cli.UsageError('--workdir or --data is missing; give --workdir=RUN[,RUN,...] --data=DATA')
    data = source.RecordSource(FLAGS.data, FLAGS.split)
    clips = [data[i] for i in range(min(FLAGS.clips, len(data)))]
    runs = []
    for number, workdir in enumerate(FLAGS.workdir):
        runs.append(measure(stattn_jax.load(workdir), clips))
        print(f'[{number + 1}/{len(FLAGS.workdir)}] {workdir}', flush=True)
    found = table(runs)
    print(f'{found.markdown()}\n{found.note}')
    rounds.write(FLAGS.out, found.to_json())


if __name__ == '__main__':
    cli.run(main, FLAGS, __doc__)

"""Tests each published set from its real annotation files to metrics: preparation, verify, ten steps, evaluation.

Videos and features are made here, with a signal planted in each. The videos are named as in common collections; the
features have the published names, keys, shapes and dtypes. Most videos are missing, as in practice, and the existing
ones are counted.
"""

import csv
import json
import pathlib

import avsbench_files
import commands
import h5py
import numpy as np
import planted
import pytest
import runs

from data_prep import ave, avsbench, kinetics_sounds, llp, vggsound
from data_prep import verify as verify_command
from stattn_jax.data import media

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quick_compile')]
RATE = 16000


def write_clip(path: pathlib.Path, number: int, seconds: int = 10) -> None:
    """Writes a clip of two frames a second whose colour and tone depend on its number."""
    rng = np.random.default_rng(number)
    frames = np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (2 * seconds, 48, 64, 3)).copy()
    tone = 0.3 * np.sin(2 * np.pi * (200 + 300 * (number % 16)) * np.arange(seconds * RATE) / RATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_video(path, frames, 2, tone.astype(np.float32), RATE)


def prepared(command, capsys, *flags) -> str:
    """Runs a preparation, which must succeed, and returns its output."""
    code, output, errors = commands.run(command, capsys, *flags)
    assert (code, errors) == (0, [])
    return output


def trained(config: str, data: pathlib.Path, workdir: pathlib.Path, **fields) -> dict[str, float]:
    """Trains ten steps of the config's runlocal variant and returns the metrics of the test split."""
    fields = {'train.steps': 10, 'train.eval_every_steps': 5, 'data.dir': data} | fields
    flags = [f'--config.{name}={value}' for name, value in fields.items()]
    assert runs.run_main(f'--config={runs.ROOT / config}:runlocal', f'--workdir={workdir}', *flags) == 0
    assert len(runs.metrics(workdir)) == 2 and np.isfinite(list(runs.metrics(workdir).values())).all()
    return json.loads((workdir / 'eval_test.json').read_text())


def splits(out: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Verifies every record and returns (wanted, used) of each split."""
    assert verify_command.verify(out).problems == []
    return {name: (split['wanted'], split['used']) for name, split in commands.report(out)['splits'].items()}


def test_vggsound(annotations, tmp_path, capsys):
    names = ['test.csv', 'stat.csv']
    for name in names:
        (tmp_path / name).symlink_to(annotations / 'vggsound' / name)
    boxed = json.loads((annotations / 'vggss' / 'vggss.json').read_text())[:10]
    test = [clip['file'] for clip in boxed]
    train = [(f'{"abcdefghijk"[i % 11]:-<11}_{30 + i:06d}', boxed[i % 4]['class']) for i in range(12)]
    with open(tmp_path / 'train.csv', 'w', newline='') as file:
        csv.writer(file).writerows((f'{clip_id}.mp4', label) for clip_id, label in train)
    for number, clip_id in enumerate([*test, *(clip_id for clip_id, _ in train)]):
        # File names have VGGSound's own form or contain milliseconds.
        source, start = clip_id[:11], int(clip_id[12:])
        stem = clip_id if number % 2 else f'{source}_{start * 1000}_{(start + 10) * 1000}'
        write_clip(tmp_path / 'videos' / f'{number % 3}' / f'{stem}.mp4', number)
    output = prepared(
        vggsound, capsys, f'--annotations={tmp_path}', f'--videos={tmp_path / "videos"}', f'--out={tmp_path / "data"}',
        f'--vggss={annotations / "vggss" / "vggss.json"}',
        f'--vggsounder={annotations / "vggsounder" / "vggsounder.csv"}', '--short_side=64',
    )  # fmt: skip
    assert '22 of 15458 clips are there' in output and '18 ' in output
    assert splits(tmp_path / 'data') == {'train': (12, 12), 'test': (15_446, 10)}
    numbers = trained('configs/vggsound.py', tmp_path / 'data', tmp_path / 'run')
    assert numbers['data/used'] == numbers['classification/n'] == 10 and numbers['data/wanted'] == 15_446
    assert numbers['sounding/n'] == numbers['pointing/space_n'] == 10
    assert 0 <= numbers['sounding/ciou'] <= numbers['sounding/ciou_oracle'] and numbers['presence/all_n'] > 0


def test_ave_from_videos(annotations, tmp_path, capsys):
    rows = [line.split('&') for line in (annotations / 'ave' / 'Annotations.txt').read_text().splitlines()]
    for split in ('train', 'val', 'test'):
        with h5py.File(annotations / 'ave' / f'{split}_order.h5') as file:
            for row in sorted(file['order'][:12]):
                write_clip(tmp_path / 'AVE' / f'{rows[row][1]}.mp4', len(rows[row][0]))
    flags = (f'--annotations={annotations / "ave"}', f'--videos={tmp_path / "AVE"}', f'--out={tmp_path / "data"}')
    output = prepared(ave, capsys, *flags, '--short_side=64')
    assert '45 ids occur in several rows' in output and '18 of them are in several splits' in output
    counts = splits(tmp_path / 'data')
    assert {name: wanted for name, (wanted, _) in counts.items()} == {'train': 3339, 'val': 402, 'test': 402}
    assert all(used >= 12 for _, used in counts.values())
    numbers = trained('configs/ave.py', tmp_path / 'data', tmp_path / 'run')
    assert numbers['segments/n'] == numbers['data/used'] == counts['test'][1]
    assert 0 < numbers['segments/accuracy_true_label_everywhere'] <= 1


def test_ave_from_features(annotations, tmp_path, capsys):
    rows = [line.split('&') for line in (annotations / 'ave' / 'Annotations.txt').read_text().splitlines()]
    classes = list(dict.fromkeys(row[0] for row in rows))
    parsed = [planted.Row(classes.index(label), video, int(start), int(end)) for label, video, _, start, end in rows]
    patterns = planted.Patterns(0, 512, 128)
    planted.write_ave_features(tmp_path, '', patterns, parsed, 0)
    planted.write_ave_features(tmp_path, '_noisy', patterns, [None] * 178, 1)
    flags = (f'--annotations={annotations / "ave"}', f'--features={tmp_path}', f'--out={tmp_path / "data"}')
    output = prepared(ave, capsys, *flags)
    assert '178 background clips without a label added to train' in output
    assert splits(tmp_path / 'data') == {'train': (3517, 3517), 'val': (402, 402), 'test': (402, 402)}
    assert len({line.split('of')[-1] for line in verify_command.verify(tmp_path / 'data').leaks}) == 18
    numbers = trained('configs/ave_features.py', tmp_path / 'data', tmp_path / 'run')
    # The trivial predictors score as on the real annotations, and the model has hardly been trained.
    assert round(100 * numbers['segments/accuracy_true_label_everywhere'], 1) == 82.2
    assert numbers['segments/n'] == 402 and numbers['segments/n_partial'] == 141
    assert 0 < numbers['segments/accuracy'] < 1


def write_llp(annotations, count):
    """Returns the clip ids of the first `count` clips of each split."""
    chosen = []
    for name in llp.WEAK.values():
        with open(annotations / 'llp' / name) as file:
            chosen += [row['filename'] for row in csv.DictReader(file, delimiter='\t')][:count]
    return chosen


def test_llp_from_videos(annotations, tmp_path, capsys):
    for number, clip_id in enumerate(write_llp(annotations, 10)):
        write_clip(tmp_path / 'videos' / f'{clip_id if number % 2 else clip_id[:11]}.mp4', number)
    flags = (f'--annotations={annotations / "llp"}', f'--videos={tmp_path / "videos"}', f'--out={tmp_path / "data"}')
    prepared(llp, capsys, *flags, '--short_side=64')
    assert splits(tmp_path / 'data') == {'train': (10_000, 10), 'val': (649, 10), 'test': (1200, 10)}
    numbers = trained('configs/llp.py', tmp_path / 'data', tmp_path / 'run')
    assert numbers['parsing/n'] == 10 and numbers['data/wanted'] == 1200
    assert numbers['parsing_labels/segment_type'] > numbers['parsing_nothing/segment_type']


def test_llp_from_features(annotations, tmp_path, capsys):
    chosen = write_llp(annotations, 30)
    planted.write_llp(tmp_path / 'features', {clip_id[:11]: [number % 25] for number, clip_id in enumerate(chosen)}, 25)
    flags = (
        f'--annotations={annotations / "llp"}',
        f'--features={tmp_path / "features"}',
        f'--out={tmp_path / "data"}',
    )
    prepared(llp, capsys, *flags, '--require=90')
    assert splits(tmp_path / 'data') == {'train': (10_000, 30), 'val': (649, 30), 'test': (1200, 30)}
    numbers = trained('configs/llp_features.py', tmp_path / 'data', tmp_path / 'run')
    assert numbers['parsing/n'] == 30 and 0 <= numbers['parsing/segment_type'] <= 1


def test_kinetics_sounds(annotations, tmp_path, capsys):
    lists = annotations / 'kinetics_sounds'
    for name in kinetics_sounds.LISTS.values():
        for number, line in enumerate((lists / name).read_text().splitlines()[:12]):
            write_clip(tmp_path / 'videos' / f'{line.split(",")[0]}.mp4', number)
    flags = (f'--annotations={lists}', f'--videos={tmp_path / "videos"}', f'--out={tmp_path / "data"}')
    prepared(kinetics_sounds, capsys, *flags, '--classes=ogmge31', '--short_side=64')
    assert splits(tmp_path / 'data') == {'train': (14_799, 12), 'test': (2597, 12)}
    numbers = trained('configs/kinetics_sounds.py', tmp_path / 'data', tmp_path / 'run')
    assert numbers['classification/n'] == 12 and numbers['data/wanted'] == 2597


def test_avsbench(tmp_path, capsys):
    s4 = avsbench_files.write_s4(tmp_path / 'Single-source', {'train': 16, 'val': 6, 'test': 6})
    prepared(avsbench, capsys, f'--data={s4}', '--subset=s4', f'--out={tmp_path / "data"}')
    assert splits(tmp_path / 'data') == {'train': (16, 16), 'val': (6, 6), 'test': (6, 6)}
    numbers = trained('configs/avsbench.py', tmp_path / 'data', tmp_path / 'run')
    assert numbers['masks/frames'] == numbers['masks/frames_with_object'] == 30 and numbers['masks/skipped'] == 0
    # Each object is an eighth of the frame, at one of four places that all splits share.
    assert numbers['masks/miou_everything'] == pytest.approx(1 / 8) and numbers['masks/miou_nothing'] == 0
    assert numbers['masks/miou'] > 0 and numbers['masks/joint_n'] == numbers['masks/point_contribution_n'] == 6
    val = json.loads((tmp_path / 'run' / 'eval_val.json').read_text())
    for name in ('', '_contribution', '_centre', '_prior'):
        assert numbers[f'masks/threshold{name}'] == pytest.approx(val[f'masks/threshold{name}'], abs=1e-6)
    # The run of S4 is evaluated on MS3, whose clips have no label and whose object is silent in two of five seconds.
    ms3 = avsbench_files.write_ms3(tmp_path / 'Multi-sources', {'train': 2, 'val': 4, 'test': 4})
    flags = ('--subset=ms3', f'--classes={tmp_path / "data/tables/classes.txt"}', f'--out={tmp_path / "ms3"}')
    prepared(avsbench, capsys, f'--data={ms3}', *flags)
    assert runs.run_main('--mode=eval', f'--workdir={tmp_path / "run"}', f'--config.data.dir={tmp_path / "ms3"}') == 0
    numbers = json.loads((tmp_path / 'run' / 'eval_test.json').read_text())
    assert (numbers['masks/frames'], numbers['masks/frames_with_object']) == (20, 12)
    assert numbers['masks/miou_nothing'] == pytest.approx(2 / 5) and 'masks/miou_contribution' not in numbers
    assert numbers['masks/joint_n'] == 4 and 0 <= numbers['masks/miou'] <= 1

"""Feature files with a planted signal, in the format of AVE and LLP, for the tests of feature mode.

Names, keys, shapes and dtypes are those of the published files. Each class has a pattern in the visual and one in the
audio features. In a second of an event, one to six cells of the grid carry the class's pattern, and so does the audio.
In other seconds the pattern is in neither modality, or only in the visual or only in the audio features, which is not
an audio-visual event.
"""

import dataclasses
import pathlib

import h5py
import numpy as np

CLASSES = (
    'Church bell', 'Male speech, man speaking', 'Bark', 'Fixed-wing aircraft, airplane', 'Race car, auto racing',
    'Female speech, woman speaking', 'Helicopter', 'Violin, fiddle', 'Flute', 'Ukulele', 'Frying (food)', 'Truck',
    'Shofar', 'Motorcycle',
    'Acoustic guitar', 'Train horn', 'Clock', 'Banjo', 'Goat', 'Baby cry, infant cry', 'Bus', 'Chainsaw', 'Cat',
    'Horse', 'Toilet flush',
    'Rodents, rats, mice', 'Accordion', 'Mandolin',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of AVE's Annotations.txt."""

    label: int
    video: str
    onset: int
    offset: int


def make_rows(clips: int, seed: int = 0, classes: int = len(CLASSES)) -> list[Row]:
    """Returns rows that cycle through the classes, with events of 2 to 10 seconds; about a third is background."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(clips):
        length = int(rng.integers(2, 11))
        onset = int(rng.integers(0, 11 - length))
        rows.append(Row(i % classes, f'v{i:010d}', onset, onset + length))
    return rows


class Patterns:
    """Features of clips: mostly small, ReLU-like values, with the patterns of the classes added."""

    def __init__(self, seed: int, visual: int, audio: int, classes: int = len(CLASSES)):
        rng = np.random.default_rng([seed, 1])
        self.visual = rng.gamma(0.3, 8.0, (classes, visual)).astype(np.float32)
        self.audio = rng.gamma(0.5, 0.8, (classes, audio)).astype(np.float32)

    def clip(self, rng, label: int | None, seen_t: np.ndarray, heard_t: np.ndarray, grid: tuple[int, int]):
        """Returns (visual [t h w d], audio [t k]) with the class visible and audible in the given segments."""
        t, (h, w) = len(seen_t), grid
        visual = rng.gamma(0.3, 5.0, (t, h, w, self.visual.shape[1])).astype(np.float32)
        audio = rng.gamma(0.5, 0.5, (t, self.audio.shape[1])).astype(np.float32)
        if label is not None:
            high, wide = int(rng.integers(1, min(h, 3) + 1)), int(rng.integers(1, min(w, 2) + 1))
            y, x = int(rng.integers(0, h - high + 1)), int(rng.integers(0, w - wide + 1))
            visual[seen_t, y : y + high, x : x + wide] += self.visual[label]
            audio[heard_t] += self.audio[label]
        return visual, audio


def seen_and_heard(rng, row: Row, segments: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the class is visible and audible, bool [t] each.

    Both hold within the event. Outside it, half of the seconds have neither and the others have one of the two.
    """
    seconds = np.arange(segments)
    event = (row.onset <= seconds) & (seconds < row.offset)
    outside = rng.random(segments)
    return event | (outside < 0.25), event | (outside >= 0.75)


def write_ave(folder: pathlib.Path, rows: list[Row], splits: dict[str, list[int]], *, background: int, seed: int = 0):
    """Writes the files of AVE for the rows and for `background` clips without an event.

    These are Annotations.txt, the order files, labels_noisy.h5 and the feature tables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'{CLASSES[row.label]}&{row.video}&good&{row.onset}&{row.offset}' for row in rows]
    (folder / 'Annotations.txt').write_text('\n'.join(lines) + '\n')
    for split, numbers in splits.items():
        with h5py.File(folder / f'{split}_order.h5', 'w') as file:
            file['order'] = np.array(numbers, np.int64)
    patterns = Patterns(seed, 512, 128)
    write_ave_features(folder, '', patterns, rows, seed)
    write_ave_features(folder, '_noisy', patterns, [None] * background, seed + 1)
    with h5py.File(folder / 'labels_noisy.h5', 'w') as file:
        file['avadataset'] = np.tile(np.eye(29, dtype=np.float32)[28], (background, 1))


def write_ave_features(folder: pathlib.Path, suffix: str, patterns: Patterns, rows: list[Row | None], seed: int):
    """Writes the visual and the audio feature table; a row that is None is background."""
    rng = np.random.default_rng([seed, 2])
    with (
        h5py.File(folder / f'visual_feature{suffix}.h5', 'w') as pictures,
        h5py.File(folder / f'audio_feature{suffix}.h5', 'w') as sounds,
    ):
        visual = pictures.create_dataset('avadataset', (len(rows), 10, 7, 7, 512), np.float32)
        # The published table of the background clips is in double precision.
        audio = sounds.create_dataset('avadataset', (len(rows), 10, 128), np.float64 if suffix else np.float32)
        for i, row in enumerate(rows):
            seen, heard = seen_and_heard(rng, row) if row else (np.zeros(10, bool),) * 2
            visual[i], audio[i] = patterns.clip(rng, row.label if row else None, seen, heard, (7, 7))


def llp_clip(
    patterns: Patterns, rng, labels: list[int]
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str, int, int]]]:
    """Returns (visual [t d], audio [t k], events) of a video.

    Each label is visible, audible or both, with a separate interval for each modality.
    """
    visual = rng.gamma(0.3, 5.0, (10, patterns.visual.shape[1])).astype(np.float32)
    audio = rng.gamma(0.5, 0.5, (10, patterns.audio.shape[1])).astype(np.float32)
    events = []
    for label in labels:
        kind = rng.choice(['audio', 'visual', 'both'], p=[0.3, 0.1, 0.6])
        for modality, features, pattern in (('visual', visual, patterns.visual), ('audio', audio, patterns.audio)):
            if kind in (modality, 'both'):
                length = int(rng.integers(2, 11))
                onset = int(rng.integers(0, 11 - length))
                features[onset : onset + length] += pattern[label]
                events.append((label, modality, onset, onset + length))
    return visual, audio, events


def write_llp(folder: pathlib.Path, labels: dict[str, list[int]], classes: int, seed: int = 0) -> dict[str, list]:
    """Writes the three npy files of each video id; returns the events of each."""
    patterns = Patterns(seed, 2560, 128, classes)
    rng = np.random.default_rng([seed, 3])
    for name in ('vggish', 'res152', 'r2plus1d_18'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    events = {}
    for video, chosen in labels.items():
        visual, audio, events[video] = llp_clip(patterns, rng, chosen)
        np.save(folder / 'vggish' / f'{video}.npy', audio)
        np.save(folder / 'res152' / f'{video}.npy', np.repeat(visual[:, :2048], 8, axis=0))
        np.save(folder / 'r2plus1d_18' / f'{video}.npy', visual[:, 2048:])
    return events

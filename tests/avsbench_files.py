"""Small files with AVSBench's names: frames with one bright object, masks of it, and a tone."""

import pathlib
import wave

import numpy as np
from PIL import Image

CATEGORIES = ('dog_barking', 'playing_piano')
# Colours by the rule of Pascal VOC: of classes 1, 2 and 9.
LABELS = {'background': 0, 'dog': 1, 'piano': 2, 'violin': 9}
COLOURS = {'dog': (128, 0, 0), 'piano': (0, 128, 0), 'violin': (192, 0, 0)}


def box(number, height, width):
    """Returns rows and columns of the object of a clip: an eighth of the frame, at a place by its number."""
    top, left = height // 4 * (number % 4), width // 2 * (number // 2 % 2)
    return slice(top, top + height // 4), slice(left, left + width // 2)


def frame(number, height, width):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box(number, height, width)] = 255
    return pixels


def save(path: pathlib.Path, pixels: np.ndarray, mode: str | None = None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, quality=95)


def tone(path: pathlib.Path, number: int, seconds: float, rate: int = 16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.3 * np.sin(2 * np.pi * 400 * (1 + number % 2) * np.arange(round(seconds * rate)) / rate)
    with wave.open(str(path), 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * samples).astype('<i2').tobytes())


def write_s4(folder: pathlib.Path, clips: dict[str, int]) -> pathlib.Path:
    """Writes S4 with as many clips as `clips` says for each split, which alternate between two categories."""
    lines = ['name,start,category,split']
    for split, count in clips.items():
        for i in range(count):
            name, category = f'{split}clip{i}', CATEGORIES[i % 2]
            lines.append(f'{name},{i},{category},{split}')
            inside = f'{split}/{category}/{name}'
            for t in range(1, 6):
                save(folder / f's4_data/visual_frames/{inside}/{name}_{t}.png', frame(i, 32, 32))
                if t == 1 or split != 'train':
                    mask = frame(i, 32, 32)[..., 0] > 0
                    save(folder / f's4_data/gt_masks/{inside}/{name}_{t}.png', mask)
            tone(folder / f's4_data/audio_wav/{inside}.wav', i, 5)
    (folder / 's4_meta_data.csv').write_text('\n'.join(lines) + '\n')
    return folder


def write_ms3(folder: pathlib.Path, clips: dict[str, int]) -> pathlib.Path:
    """Writes MS3; the object is silent in the last two seconds, whose masks are empty."""
    lines = ['video_id,split']
    for split, count in clips.items():
        for i in range(count):
            name = f'{split}_{i}'
            lines.append(f'{name},{split}')
            for t in range(1, 6):
                save(folder / f'ms3_data/visual_frames/{name}/{name}.mp4_{t}.png', frame(i, 32, 32))
                mask = (frame(i, 32, 32)[..., 0] > 0) & (t <= 3)
                save(folder / f'ms3_data/gt_masks/{split}/{name}/{name}_{t}.png', 255 * mask.astype(np.uint8), 'P')
            tone(folder / f'ms3_data/audio_wav/{split}/{name}.wav', i, 5)
    (folder / 'ms3_meta_data.csv').write_text('\n'.join(lines) + '\n')
    return folder


def write_semantic(folder: pathlib.Path, clips: list[tuple[str, str, str]], size=(32, 64)) -> pathlib.Path:
    """Writes the semantic set of `clips` (folder, uid, split), with two classes in the clips of v1m and v2."""
    lines = ['vid,uid,s_min,label,split']
    for i, (label, uid, split) in enumerate(clips):
        lines.append(f'x,{uid},0,{label},{split}')
        count = 10 if label == 'v2' else 5
        for t in range(count):
            save(folder / f'{label}/{uid}/frames/{t}.jpg', frame(i, *size))
            if t == 0 or (label, split) != ('v1s', 'train'):
                colours = np.zeros((*size, 3), np.uint8)
                colours[box(i, *size)] = COLOURS['dog']
                if label != 'v1s':
                    colours[box(i + 1, *size)] = COLOURS['violin']
                save(folder / f'{label}/{uid}/labels_rgb/{t}.png', colours)
        tone(folder / f'{label}/{uid}/audio.wav', i, count)
    (folder / 'metadata.csv').write_text('\n'.join(lines) + '\n')
    (folder / 'label2idx.json').write_text(str(LABELS).replace("'", '"'))
    return folder

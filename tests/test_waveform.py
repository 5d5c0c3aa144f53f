"""Tests sound with many channels or unusual channel layouts, which end the process in PyAV 18 if read plainly."""

import struct

import av
import numpy as np
import pytest
from clips import RATE, numbered

from stattn_jax.data import decode

# Labels of the QuickTime box `chan`: left, right, centre, top centre, unused.
LEFT, RIGHT, CENTRE, TOP, UNUSED = 1, 2, 3, 13, 200


def write(path, layout, codec, gains, kind='s16'):
    """Writes three seconds of a tone whose channels have these amplitudes."""
    samples = np.sin(2 * np.pi * 440 * np.arange(3 * 48000) / 48000)[:, None] * gains
    packed = samples.astype(np.float32) if kind == 'flt' else (samples * 32767).astype(np.int16)
    with av.open(path, 'w') as container:
        video = container.add_stream('libx264', rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
        audio = container.add_stream(codec, rate=48000, layout=layout)
        for image in numbered(30):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        frame = av.AudioFrame.from_ndarray(packed.reshape(1, -1), format=kind, layout=layout)
        frame.sample_rate, frame.pts = 48000, 0
        for stream, last in ((audio, frame), (audio, None), (video, None)):
            container.mux(stream.encode(last))
    return path


def loudest(path, channels):
    waveform, _ = decode.MediaFile(path).sound(0, 3, RATE, 3 * RATE, channels)
    return np.abs(waveform[..., RATE:-RATE]).max(-1)


@pytest.mark.parametrize(
    'layout,codec', [('7.1', 'wavpack'), ('22.2', 'wavpack'), ('7.1', 'aac'), ('7.1.4', 'pcm_s16le')]
)
def test_many_channels_are_averaged(tmp_path, layout, codec):
    gains = np.linspace(0.1, 0.5, av.AudioLayout(layout).nb_channels)
    path = write(tmp_path / 'a.mkv', layout, codec, gains, 'flt' if codec == 'aac' else 's16')
    # The low-frequency channel of AAC holds no tone of 440 Hz.
    assert loudest(path, 1) == pytest.approx(0.3, rel=0.12)
    assert loudest(path, 2).shape == (2,) and loudest(path, 2).min() > 0.1


def labelled(path, labels):
    """Replaces the channel layout of a QuickTime file by a label for each channel."""
    content = bytearray(path.read_bytes())
    start = content.index(b'chan') - 4
    (size,) = struct.unpack_from('>I', content, start)
    rows = b''.join(struct.pack('>II3f', label, 0, 0, 0, 0) for label in labels)
    box = struct.pack('>I4sIIII', 24 + len(rows), b'chan', 0, 0, 0, len(labels)) + rows
    for parent in (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'stsd', b'sowt'):
        at = content.rindex(parent, 0, start) - 4
        struct.pack_into('>I', content, at, struct.unpack_from('>I', content, at)[0] + len(box) - size)
    content[start : start + size] = box
    path.write_bytes(content)


@pytest.mark.parametrize(
    'layout,labels',
    [
        ('stereo', (LEFT, RIGHT)),
        ('stereo', (RIGHT, LEFT)),
        ('stereo', (LEFT, LEFT)),
        ('2.1', (TOP, CENTRE, LEFT)),
        ('5.1', (UNUSED, RIGHT, LEFT, TOP, CENTRE, 36)),
    ],
)
def test_channels_with_labels_of_their_own_are_averaged(tmp_path, layout, labels):
    gains = np.linspace(0.1, 0.5, len(labels))
    path = write(tmp_path / 'a.mov', layout, 'pcm_s16le', gains)
    labelled(path, labels)
    for _ in range(3):
        assert loudest(path, 1) == pytest.approx(0.3, rel=0.01)
        assert loudest(path, 2).shape == (2,)

"""Small encoded clips and functions that read them back, for test_media.py and test_decode.py."""

import fractions
import io

import av
import numpy as np
import PIL.Image

from stattn_jax.data import decode, media

RATE = 16000
SPEC = media.ClipSpec(segments=4, short_side=48)


def grey(levels, height=48, width=64):
    """Returns one uniform frame for each level."""
    return np.broadcast_to(np.asarray(levels, np.uint8)[:, None, None, None], (len(levels), height, width, 3)).copy()


def numbered(count):
    """Returns frames that encode their number.

    The level of the left half holds the low four bits, that of the right half the high four.
    """
    frames = grey([0] * count)
    frames[:, :, :32] = (np.arange(count) % 16 * 16)[:, None, None, None]
    frames[:, :, 32:] = (np.arange(count) // 16 * 16)[:, None, None, None]
    return frames


def noise(seconds, rate=RATE):
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype(np.float32)


def clicks(seconds, times, rate=RATE):
    """Returns a waveform with a tone burst of 5 ms from each of `times` and silence elsewhere."""
    waveform = np.zeros(round(seconds * rate), np.float32)
    burst = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(round(0.005 * rate)) / rate)
    for time in times:
        waveform[round(time * rate) :][: len(burst)] = burst
    return waveform


def encode(
    path, frames, stamps, sound, *, rate=RATE, first=0.0, codec='aac', setup=lambda stream: None, **open_options
):
    """Encodes frames at their stamps (s) and audio (float32 [channels n]) that starts at `first` (s)."""
    with av.open(path, 'w', **open_options) as container:
        video = container.add_stream('libx264', rate=10, options={'crf': '10'})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], 'yuv420p'
        video.codec_context.time_base = fractions.Fraction(1, 1000)
        setup(video)
        layout = 'stereo' if len(sound) == 2 else 'mono'
        audio = container.add_stream(codec, rate=rate, layout=layout)
        for pixels, stamp in zip(frames, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            frame.pts, frame.time_base = round(stamp * 1000), fractions.Fraction(1, 1000)
            container.mux(video.encode(frame))
        heard = av.AudioFrame.from_ndarray(sound, format='fltp', layout=layout)
        heard.sample_rate, heard.pts, heard.time_base = rate, round(first * rate), fractions.Fraction(1, rate)
        container.mux(audio.encode(heard))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


def pixels(clip):
    return [np.asarray(PIL.Image.open(io.BytesIO(frame)).convert('RGB')) for frame in clip.frames]


def numbers(clip):
    """Returns the numbers of the frames that `numbered` made."""
    halves = [(frame[:, 4:28].mean(), frame[:, 36:60].mean()) for frame in pixels(clip)]
    return [round(low / 16) + 16 * round(high / 16) for low, high in halves]


def levels(clip):
    return [frame.mean() for frame in pixels(clip)]


def onsets(path, start, seconds):
    """Returns the times at which the audio of a file rises from silence (s after `start`)."""
    waveform, _ = decode.MediaFile(path).sound(start, start + seconds, RATE, round(seconds * RATE))
    loud = np.flatnonzero(np.abs(waveform) > 0.2)
    return loud[np.diff(loud, prepend=-RATE) > 0.1 * RATE] / RATE


def write_twenty(path):
    """Writes a video of twenty seconds with 10 numbered frames a second and a click at each x.25 s."""
    media.write_video(path, numbered(200), 10, clicks(20, np.arange(20) + 0.25), RATE)
    return path


def write_small(path, seconds=10):
    """Writes a video of one frame a second, 16 pixels high, with noise as audio."""
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_video(path, grey(np.arange(seconds) * 8, 16, 24), 1, noise(seconds), RATE)
    return path

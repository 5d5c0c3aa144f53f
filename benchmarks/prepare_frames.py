"""Makes the JPEGs and log-mel of data_prep with the libraries alone, with three ways to decode the needed frames.

The three ways return the frame that is shown at each time: `whole` decodes everything up to the last of them, `seek`
jumps to the keyframe before a time if it lies ahead, `skip` also leaves out the frames that are neither requested nor
needed by other frames. `bare` makes the clip by decoding everything in one pass, as a first implementation would,
`bare_skip` uses `skip`.
"""

import os
from collections.abc import Sequence

import av
import numpy as np
import simplejpeg

from stattn_jax.data import media


def centres(spec: media.ClipSpec) -> np.ndarray:
    """Returns the middle of each segment (s), whose frame is kept."""
    return (np.arange(spec.segments) + 0.5) * spec.segment_seconds


def bare(path: str | os.PathLike, spec: media.ClipSpec) -> tuple[list[bytes], np.ndarray]:
    """Returns the JPEGs and the log-mel float16 [t f k] of a whole file, in one pass.

    The streams of the file must begin at 0 and have no gaps.
    """
    times, mel = centres(spec), media.MEL_PRESETS[spec.mel]
    jpegs, pieces, shown = [], [], None
    resampler = av.AudioResampler(format='fltp', rate=mel.rate)
    with av.open(os.fspath(path)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        for packet in container.demux(picture, sound):
            for frame in packet.decode():
                if packet.stream is sound:
                    pieces += [piece.to_ndarray().mean(0) for piece in resampler.resample(frame)]
                    continue
                while len(jpegs) < len(times) and times[len(jpegs)] < frame.time:
                    jpegs.append(_jpeg(shown, spec))
                shown = frame
    pieces += [piece.to_ndarray().mean(0) for piece in resampler.resample(None)]
    while len(jpegs) < len(times):
        jpegs.append(_jpeg(shown, spec))
    return jpegs, _log_mel(np.concatenate(pieces), spec)


def bare_skip(path: str | os.PathLike, spec: media.ClipSpec) -> tuple[list[bytes], np.ndarray]:
    """Works as `bare`, but decodes only the frames that are needed and resamples the sound in one piece."""
    jpegs = [_jpeg(frame, spec) for frame in skip(path, centres(spec))]
    queue, resampler = av.AudioFifo(), av.AudioResampler(format='fltp', rate=media.MEL_PRESETS[spec.mel].rate)
    with av.open(os.fspath(path)) as container:
        for frame in container.decode(audio=0):
            frame.pts = None
            queue.write(frame)
    pieces = [piece.to_ndarray() for frame in (queue.read(), None) for piece in resampler.resample(frame)]
    return jpegs, _log_mel(np.concatenate(pieces, 1).mean(0), spec)


def _log_mel(waveform: np.ndarray, spec: media.ClipSpec) -> np.ndarray:
    mel = media.MEL_PRESETS[spec.mel]
    return media.log_mel(waveform, mel, spec.segments, spec.segment_seconds).astype(np.float16)


def _jpeg(frame: av.VideoFrame, spec: media.ClipSpec) -> bytes:
    height, width = spec.stored((frame.height, frame.width))
    image = frame.reformat(width=width, height=height, format='rgb24', interpolation='AREA').to_ndarray()
    return simplejpeg.encode_jpeg(image, spec.jpeg_quality, colorsubsampling='420')


def whole(path: str | os.PathLike, times: Sequence[float]) -> list[av.VideoFrame]:
    """Returns the frames shown at `times` (s, ascending), decoding every frame before them."""
    with av.open(os.fspath(path)) as container:
        found, shown = [], None
        for frame in container.decode(video=0):
            while len(found) < len(times) and times[len(found)] < frame.time:
                found.append(shown)
            if len(found) == len(times):
                return found
            shown = frame
        return found + [shown] * (len(times) - len(found))


def seek(path: str | os.PathLike, times: Sequence[float]) -> list[av.VideoFrame]:
    """Works as `whole`, but decodes from the last keyframe before each time."""
    return _sought(path, times, skipping=False)


def skip(path: str | os.PathLike, times: Sequence[float]) -> list[av.VideoFrame]:
    """Works as `seek`, but skips the frames that are neither requested nor needed by other frames."""
    return _sought(path, times, skipping=True)


def _sought(path, times, skipping):
    with av.open(os.fspath(path)) as container:
        stream = container.streams.video[0]
        stamps, keys = _index(container, stream)
        wanted = [int(stamps[max(0, np.searchsorted(stamps, time / stream.time_base, 'right') - 1)]) for time in times]
        frames, at = {}, None
        for stamp in wanted:
            key = int(keys[np.searchsorted(keys, stamp, 'right') - 1])
            if at is None or key > at:
                container.seek(key, stream=stream)
                packets = container.demux(stream)
            while stamp not in frames:
                packet = next(packets)
                # The last packet of the stream has no time stamp; it flushes the frames that the decoder still holds.
                at = packet.pts if packet.pts is not None else at
                if skipping:
                    stream.codec_context.skip_frame = 'DEFAULT' if packet.pts in wanted else 'NONREF'
                frames |= {frame.pts: frame for frame in packet.decode() if frame.pts in wanted}
        return [frames[stamp] for stamp in wanted]


def _index(container, stream) -> tuple[np.ndarray, np.ndarray]:
    """Returns the time stamps of all frames and of the keyframes, ascending, from the packets, without decoding."""
    packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.pts is not None]
    return np.sort([pts for pts, _ in packets]), np.sort([pts for pts, is_key in packets if is_key])

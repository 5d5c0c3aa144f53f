"""Synthetic audio-visual scenes with exact ground truth: which object is seen, which one sounds, where and when.

A clip's class is that of the only object that is both seen *and* heard in the event interval. Silent moving objects of
other classes are seen as well, and another class is heard off-screen in other segments, so that neither the frames nor
the audio are sufficient alone. `events` is the demo. `lopsided` is a case in which naive training fails: objects are
small, backgrounds are cluttered, and the audio almost gives the class away because the event lasts longer than the
off-screen sound. In scenes_binding.py the class is neither a shape nor a sound. synthetic.py turns scenes into records
through the same front-end as real video.
"""

import dataclasses

import numpy as np

RATE = 16000
CLASSES = (
    'red disc',
    'orange square',
    'yellow triangle',
    'lime ring',
    'green cross',
    'teal diamond',
    'azure bars',
    'blue stripes',
    'violet checker',
    'pink moon',
)
CLASS_RGB = np.array(
    [
        [0.90, 0.15, 0.15],
        [0.95, 0.50, 0.10],
        [0.95, 0.90, 0.15],
        [0.60, 0.95, 0.15],
        [0.10, 0.65, 0.20],
        [0.10, 0.70, 0.65],
        [0.25, 0.65, 1.00],
        [0.15, 0.25, 0.90],
        [0.60, 0.20, 0.85],
        [1.00, 0.50, 0.75],
    ],
    np.float32,
)


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """Parameters of a variant's difficulty: object half-size (fraction of the frame), clutter, and sound lengths.

    The lengths of the event and of the off-screen sound are in segments.
    """

    half_size: tuple[float, float]
    distractors: tuple[int, int]
    clutter: int
    colour_jitter: float
    event_lengths: tuple[int, int]
    offscreen_lengths: tuple[int, int]


DIFFICULTIES = {
    'events': Difficulty((0.16, 0.20), (1, 2), 0, 0.05, (2, 6), (2, 6)),
    'lopsided': Difficulty((0.11, 0.135), (2, 2), 12, 0.12, (2, 6), (1, 3)),
}


@dataclasses.dataclass(frozen=True)
class Thing:
    """One visible object: its shape (that of the class, in CLASSES), half-size, path, colour and visible interval.

    The half-size and the path are fractions of the frame; the interval is in seconds.
    """

    shape: int
    half: float
    start_xy: np.ndarray
    velocity_xy: np.ndarray
    rgb: np.ndarray
    visible: tuple[float, float]

    def centre(self, time: float | np.ndarray) -> np.ndarray:
        """Returns the centre at `time` s, as (x, y) in 0..1: a straight path reflected at the frame's border.

        Times [t 1] give [t 2].
        """
        low, high = self.half, 1 - self.half
        path = (self.start_xy + self.velocity_xy * time - low) / (high - low)
        return low + (high - low) * (1 - np.abs(1 - path % 2))


@dataclasses.dataclass(frozen=True)
class Scene:
    """All data needed to render one clip; `event` and `offscreen` are (first, end) segments of one second.

    `things[source]` sounds in the event, with `timbre`; `offscreen_timbre` is that of no visible object. A timbre is an
    index into CLASSES. `grey` means that the background below the clutter is grey.
    """

    label: int
    timbre: int
    event: tuple[int, int]
    offscreen_timbre: int
    offscreen: tuple[int, int]
    things: tuple[Thing, ...]
    source: int
    segments: int
    clutter: int
    grey: bool
    seed: tuple[int, ...]

    def box(self, time: float) -> tuple[float, float, float, float]:
        """Returns the sounding object's box (x0, y0, x1, y1) in 0..1 of the frame at `time` s."""
        thing = self.things[self.source]
        x, y = thing.centre(time)
        return x - thing.half, y - thing.half, x + thing.half, y + thing.half


def make_scene(variant: str, segments: int, seed: tuple[int, ...]) -> Scene:
    """Samples one scene at random; the same (variant, segments, seed) always gives the same scene."""
    spec = DIFFICULTIES[variant]
    rng = np.random.default_rng(seed)
    n_distractors = int(rng.integers(spec.distractors[0], spec.distractors[1] + 1))
    label, offscreen_label, *distractor_labels = rng.permutation(len(CLASSES))[: 2 + n_distractors].tolist()
    event, offscreen = _intervals(rng, spec, segments)
    # The visible intervals of distractors have the same distribution as those of the sounding object, so that the
    # length of visibility does not reveal which object sounds.
    seen = [_visible_around(rng, _intervals(rng, spec, segments)[0], segments) for _ in distractor_labels]
    things = [_thing(rng, spec, *pair) for pair in zip(distractor_labels, seen)]
    things.append(_thing(rng, spec, label, _visible_around(rng, event, segments)))
    return Scene(
        label=label,
        timbre=label,
        event=event,
        offscreen_timbre=offscreen_label,
        offscreen=offscreen,
        things=tuple(things),
        source=len(things) - 1,
        segments=segments,
        clutter=spec.clutter,
        grey=False,
        seed=tuple(seed) + (1,),
    )


def _run(rng, lengths, segments):
    length = int(rng.integers(lengths[0], min(lengths[1], segments - 1) + 1))
    first = int(rng.integers(0, segments - length + 1))
    return first, first + length


def _intervals(rng, spec, segments):
    # Both intervals are sampled from the ranges of the variant and rejected together. If the ranges are equal, the two
    # lengths are exchangeable, and duration is no cue to the class.
    while True:
        event, offscreen = _run(rng, spec.event_lengths, segments), _run(rng, spec.offscreen_lengths, segments)
        if offscreen[1] <= event[0] or offscreen[0] >= event[1]:
            return event, offscreen


def _visible_around(rng, interval, segments):
    return max(0.0, interval[0] - rng.uniform(0, 2)), min(float(segments), interval[1] + rng.uniform(0, 2))


def _thing(rng, spec, label, visible):
    half = rng.uniform(*spec.half_size)
    rgb = np.clip(CLASS_RGB[label] + rng.normal(0, spec.colour_jitter, 3), 0, 1).astype(np.float32)
    return Thing(label, half, rng.uniform(half, 1 - half, 2), rng.uniform(-0.12, 0.12, 2), rgb, visible)


def _inside(shape: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance-like field of a class's shape in its own box (u, v in -1..1); negative inside."""
    r = np.hypot(u, v)
    box = np.maximum(np.abs(u), np.abs(v))
    return (
        lambda: r - 0.95,
        lambda: box - 0.85,
        lambda: np.maximum(np.abs(u) * 0.87 + v * 0.5, -v) - 0.48,
        lambda: np.abs(r - 0.7) - 0.25,
        lambda: np.minimum(np.maximum(np.abs(u), 3 * np.abs(v)), np.maximum(np.abs(v), 3 * np.abs(u))) - 0.95,
        lambda: np.abs(u) + np.abs(v) - 1.0,
        lambda: np.maximum(box - 0.95, 0.3 * np.cos(2.5 * np.pi * v)),
        lambda: np.maximum(box - 0.95, 0.3 * np.cos(2.5 * np.pi * u)),
        lambda: np.maximum(box - 0.95, 0.3 * np.sign(u * v) * np.minimum(1, 8 * np.minimum(np.abs(u), np.abs(v)))),
        lambda: np.maximum(r - 0.95, 0.75 - np.hypot(u - 0.55, v)),
    )[shape]()


def draw(scene: Scene, times: np.ndarray, size: int) -> np.ndarray:
    """Renders the scene at `times` (s): uint8 [t size size 3].

    Edges are anti-aliased over one pixel of a 64-pixel frame.
    """
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size
    background = _background(scene, x, y)
    rng = np.random.default_rng(scene.seed + (2,))
    frames = np.empty((len(times), size, size, 3), np.uint8)
    for i, time in enumerate(times):
        frame = background.copy()
        for thing in scene.things:
            if thing.visible[0] <= time < thing.visible[1]:
                _paint(frame, thing, thing.centre(time), x, y)
        grain = rng.normal(0, 0.03, (64, 64, 1)).astype(np.float32)
        frame += grain.repeat(-(-size // 64), 0).repeat(-(-size // 64), 1)[:size, :size]
        frames[i] = np.clip(frame * 255, 0, 255)
    return frames


def _paint(frame, thing, centre, x, y):
    u, v = (x - centre[0]) / thing.half, (y - centre[1]) / thing.half
    edge = 64 * thing.half
    mask = np.clip(0.5 - _inside(thing.shape, u, v) * edge, 0, 1)[..., None]
    frame += mask * (thing.rgb - frame)


def _background(scene, x, y):
    rng = np.random.default_rng(scene.seed)
    image = np.broadcast_to(rng.uniform(0.25, 0.75, 3).astype(np.float32), x.shape + (3,)).copy()
    for _ in range(3):
        fx, fy, phase = rng.uniform(-6, 6), rng.uniform(-6, 6), rng.uniform(0, 2 * np.pi)
        image += 0.12 * np.sin(fx * x + fy * y + phase)[..., None] * rng.uniform(-1, 1, 3).astype(np.float32)
    if scene.grey:
        image = image.mean(-1, keepdims=True).repeat(3, -1)
    for _ in range(scene.clutter):
        cx, cy = rng.uniform(0, 1, 2)
        a, b, turn = rng.uniform(0.04, 0.25), rng.uniform(0.04, 0.25), rng.uniform(0, np.pi)
        u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / a
        v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / b
        mask = np.clip(8 * (1 - np.maximum(np.abs(u), np.abs(v))), 0, 1)[..., None]
        image += mask * 0.7 * (rng.uniform(0, 1, 3).astype(np.float32) - image)
    return image


def sound(scene: Scene) -> np.ndarray:
    """Returns the clip's waveform, float32 at 16 kHz in -1..1: event, off-screen sound and noise.

    The standard deviation of the noise is log-uniform between 10**-2.6 and 10**-1.8 of full scale.
    """
    rng = np.random.default_rng(scene.seed + (3,))
    samples = scene.segments * RATE
    wave = rng.normal(0, 10 ** rng.uniform(-2.6, -1.8), samples)
    for timbre, (first, end) in ((scene.timbre, scene.event), (scene.offscreen_timbre, scene.offscreen)):
        part = _timbre(timbre, (end - first) * RATE, rng) * 10 ** rng.uniform(-1.0, -0.5)
        fade = np.minimum(1, np.minimum(np.arange(len(part)), np.arange(len(part))[::-1]) / (0.02 * RATE))
        wave[first * RATE : end * RATE] += part * fade
    return np.clip(wave, -1, 1).astype(np.float32)


def _timbre(number, samples, rng):
    t = np.arange(samples) / RATE
    pitch = rng.uniform(0.94, 1.06)

    def sweep(hz):
        return np.sin(2 * np.pi * np.cumsum(hz * pitch) / RATE)

    def band(low, high):
        spectrum = np.fft.rfft(rng.normal(0, 1, samples))
        hz = np.fft.rfftfreq(samples, 1 / RATE)
        spectrum[(hz < low * pitch) | (hz > high * pitch)] = 0
        noise = np.fft.irfft(spectrum, samples)
        return noise / np.abs(noise).max()

    return (
        lambda: sweep(440 + 20 * np.sin(2 * np.pi * 5 * t)),
        lambda: np.sign(sweep(np.full(samples, 220.0))) * 0.6,
        lambda: sweep(500 + 1500 * (t * 4 % 1)),
        lambda: sweep(2000 - 1500 * (t * 4 % 1)),
        lambda: band(2000, 4000) * (0.5 + 0.5 * np.sin(2 * np.pi * 8 * t)),
        lambda: band(300, 7000) * np.exp(-60 * (t * 6 % 1) / 6),
        lambda: sweep(np.where(t * 2.5 % 1 < 0.5, 600.0, 900.0)),
        lambda: (
            sum(sweep(np.full(samples, 110.0 * k)) / k for k in range(1, 6))
            * 0.5
            * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
        ),
        lambda: sweep(np.where(t * 12 % 1 < 0.5, 3000.0, 3500.0)),
        lambda: band(400, 1000) * (0.5 + 0.5 * np.sin(2 * np.pi * 2 * t)),
    )[number]()

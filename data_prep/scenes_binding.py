"""Synthetic scenes in which the class follows only from *which object sounds* and *when* it sounds.

Two or three objects are in view, each with its own sound and two colours. An object's shape determines its sound. Each
object changes its colour once, no two at the same time, and no colour is shown twice. One object sounds for some
seconds in which it keeps its colour: the class is that colour. A shape that is not in view is heard in other seconds,
and the rest is noise. Shapes, positions, paths, times of change and times of sound are independent of the colours; the
sounding object, and which of its two colours it has while it sounds, are sampled uniformly. Hence, with m = 4 or 6
colours shown (half of the clips each):

- The audio carries no information about the class: accuracy 1/8, chance level.
- The frames leave all m colours equally likely: (1/4 + 1/6) / 2 = 20.8 %, even for a classifier that identifies every
  object, colour and time.
- A rule that combines the class probabilities of both modalities also gets 20.8 %, because those of the audio are
  uniform. This is the ceiling without binding.
- *Which* without *when* is right in 1/2, *when* without *which* in (1/2 + 1/3) / 2 = 41.7 %.

The third item is no bound for a sum f(sound) + g(picture) of scores that are trained *together*, because the two can
cooperate: f can rank the colours for each sound by an arbitrary table, and g can raise those colours of the frames that
the table happens to sort correctly. Still, no such sum can be right in more than 64 % of clips. Proof: fix everything
but the colours, and take k of the m sounds that the clip may have. If the sum is right with all k, these colours are
the best assignment to these sounds by f alone (g adds the same to every assignment), which only one in k! orders of the
colours is. So the mean number of k-sets that are right together is at most binom(m, k) / k! for every k, and therefore
the mean number of sounds that are right is at most 2.67 of 4 and 3.63 of 6 (tests/test_scenes_binding.py counts).

synthetic.py turns the scenes into records.
"""

import numpy as np

from data_prep.scenes import Scene, Thing

# Eight hues on grey are easy for the network to distinguish, so that binding is the only difficulty.
COLOURS = {
    'red': (0.90, 0.10, 0.10),
    'orange': (1.00, 0.55, 0.05),
    'yellow': (0.95, 0.95, 0.15),
    'green': (0.10, 0.65, 0.15),
    'cyan': (0.15, 0.85, 0.90),
    'blue': (0.05, 0.20, 0.90),
    'violet': (0.50, 0.10, 0.90),
    'pink': (1.00, 0.30, 0.70),
}
CLASSES = tuple(COLOURS)
# Disc, triangle, ring, cross, bars and stripes of scenes.CLASSES, with their sounds; distinguishable at 20 pixels.
SHAPES = (0, 2, 3, 4, 6, 7)
HALF_SIZE = (0.14, 0.17)
SPEED = 0.05
LENGTHS = (2, 4)


def make_scene(segments: int, seed: tuple[int, ...]) -> Scene:
    """Samples one scene of at least 6 segments at random; the same (segments, seed) always gives the same scene."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 4))
    *shapes, offscreen_shape = rng.permutation(SHAPES)[: n + 1].tolist()
    colours = rng.permutation(len(CLASSES))[: 2 * n].reshape(n, 2)
    changes = rng.permutation(np.arange(LENGTHS[0], segments - LENGTHS[0] + 1))[:n].tolist()
    halves, starts, velocities = _paths(rng, n, segments)
    things = tuple(
        Thing(shapes[i], halves[i], starts[i], velocities[i], _rgb(rng, colours[i, phase]), (float(first), float(end)))
        for i in range(n)
        for phase, (first, end) in enumerate(((0, changes[i]), (changes[i], segments)))
    )
    # The object and its colour are sampled first, uniformly, and then the seconds, so that the frames favour no colour,
    # whatever the times of change.
    source = int(rng.integers(len(things)))
    event, offscreen = _intervals(rng, tuple(int(x) for x in things[source].visible), segments)
    return Scene(
        label=int(colours.flat[source]),
        timbre=things[source].shape,
        event=event,
        offscreen_timbre=offscreen_shape,
        offscreen=offscreen,
        things=things,
        source=source,
        segments=segments,
        clutter=0,
        grey=True,
        seed=tuple(seed) + (1,),
    )


def _paths(rng, n, segments):
    """Samples half-sizes, starts and velocities of n objects whose boxes never meet."""
    times = np.arange(0, segments + 0.25, 0.25)[:, None]
    while True:
        halves = rng.uniform(*HALF_SIZE, n)
        starts = rng.uniform(halves[:, None], 1 - halves[:, None], (n, 2))
        velocities = rng.uniform(-SPEED, SPEED, (n, 2))
        # Most samples overlap at the start and are rejected before their paths are computed.
        if _apart(starts[:, None], halves):
            things = [Thing(0, *path, np.zeros(3), (0, 0)) for path in zip(halves, starts, velocities)]
            if _apart(np.stack([thing.centre(times) for thing in things]), halves):
                return halves, starts, velocities


def _apart(centres_nt2, halves_n):
    i, j = np.triu_indices(len(halves_n), 1)
    return (np.abs(centres_nt2[i] - centres_nt2[j]).max(-1).min(-1) > halves_n[i] + halves_n[j] + 0.01).all()


def _rgb(rng, colour):
    return np.clip(np.array(COLOURS[CLASSES[colour]]) + rng.normal(0, 0.04, 3), 0, 1).astype(np.float32)


def _intervals(rng, phase, segments):
    """Samples the segments of the object's sound, within `phase`, and those of the off-screen shape's sound.

    Both lengths have the same distribution as far as the phase permits.
    """
    while True:
        event, offscreen = _run(rng, *phase), _run(rng, 0, segments)
        if offscreen[1] <= event[0] or offscreen[0] >= event[1]:
            return event, offscreen


def _run(rng, first, end):
    length = int(rng.integers(LENGTHS[0], min(LENGTHS[1], end - first) + 1))
    start = int(rng.integers(first, end - length + 1))
    return start, start + length

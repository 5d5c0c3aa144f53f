"""The order of the networks' parameters from the logits to the pixels; the study re-initialises them in this order."""

from collections.abc import Iterable

HEADS, PROJECTIONS, TRUNKS = ('head', 'visual_head', 'audio_head', 'bias'), ('value', 'audio_out'), ('visual', 'audio')
# The trained layers that follow frozen trunks, which have no parameters.
AFTER_FROZEN = ('visual_layer', 'audio_layer')
# Names between heads and projections in the networks of models/, from the logits to the pixels; a line holds names of
# equal depth.
BETWEEN = (
    ('joint', 'ranks', 'shift', 'norm', 'prototypes'),
    ('lstms', 'layers', 'unit'),
    ('class_tokens', 'bottleneck'),
    ('time', 'modality', 'score'),
    ('space', 'hybrid', 'of_seen', 'of_heard', 'gate', 'content', 'gamma', 'beta'),
    ('seen', 'heard', 'embed', 'narrow'),
)


def groups(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns the top-level names of a network's parameters by group, from the logits to the pixels.

    The groups are heads, the levels between (named after their parts), projections, the layers after frozen trunks, and
    trunks. Raises ValueError for a name of no known depth.
    """
    names = set(names)
    levels = [('heads', HEADS), *(('', level) for level in BETWEEN), ('projections', PROJECTIONS)]
    levels += [('after_frozen', AFTER_FROZEN), ('trunks', TRUNKS)]
    unknown = names - {name for _, level in levels for name in level}
    if unknown:
        raise ValueError(
            f'parameters {", ".join(sorted(unknown))}: at no known depth; '
            'name them in models/parameter_groups.py, BETWEEN'
        )
    found = [(label, tuple(name for name in level if name in names)) for label, level in levels]
    return {label or '+'.join(level): level for label, level in found if level}

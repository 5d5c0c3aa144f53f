"""Tests of data/spec.py, which describes the clips of a data set."""

import dataclasses

import pytest

from stattn_jax.data import media

SPEC = media.ClipSpec(segments=4, short_side=48)


def test_spec_goes_through_json_and_refuses_nonsense():
    assert media.ClipSpec.from_json(SPEC.to_json()) == SPEC and SPEC.mel_shape == (4, 96, 64) and SPEC.seconds == 4
    assert media.ClipSpec(segments=3, segment_seconds=2.0).mel_shape == (3, 192, 64)
    for wrong in (
        {'segments': 0},
        {'segments': 2.0},
        {'segment_seconds': 0.01},
        {'jpeg_quality': 101},
        {'mel': 'fbank'},
        {'square': 'false'},
    ):
        with pytest.raises(ValueError, match=f'{next(iter(wrong))}=.*: give'):
            media.ClipSpec(**wrong)
    with pytest.raises(ValueError, match='unknown: colour'):
        media.ClipSpec.from_json({**SPEC.to_json(), 'colour': 1})
    with pytest.raises(ValueError, match='missing or unknown: segments'):
        media.ClipSpec.from_json({name: value for name, value in SPEC.to_json().items() if name != 'segments'})


def test_specs_from_before_square_frames_keep_their_form():
    old = {'segments': 4, 'segment_seconds': 1.0, 'short_side': 48, 'jpeg_quality': 90, 'mel': 'vggish'}
    assert media.ClipSpec.from_json(old) == SPEC and not SPEC.square
    assert SPEC.to_json() == old, 'fingerprints and begun preparations depend on it'
    square = dataclasses.replace(SPEC, square=True)
    assert media.ClipSpec.from_json(square.to_json()) == square != SPEC


@pytest.mark.parametrize(
    'size, longer, square',
    [((480, 640), (48, 64), (48, 48)), ((640, 480), (64, 48), (48, 48)), ((30, 40), (30, 40), (30, 30)),
     ((48, 48), (48, 48), (48, 48))],
)  # fmt: skip
def test_frames_are_stored_whole_or_made_square_and_never_enlarged(size, longer, square):
    assert SPEC.stored(size) == longer
    assert media.ClipSpec(segments=4, short_side=48, square=True).stored(size) == square

"""Tests names.py: few known names are all listed, and of many their number and the nearest."""

from stattn_jax import names


def test_few_names_are_listed():
    assert names.expected('x', ['a', 'b', 'a']) == 'expected one of a, b'
    assert names.expected('Trian', ['train', 'val']) == 'expected one of train, val (did you mean train?)'


def test_of_many_names_the_nearest_are_shown_with_their_number():
    known = ['dog barking', 'dog growling', *(f'class {i}' for i in range(300))]
    text = names.expected('Dog barkin', known, 'classes')
    assert text == 'expected one of 302 classes (did you mean dog barking or dog growling?)'
    assert names.expected('xyz', known, 'classes') == (
        'expected one of 302 classes, such as dog barking, dog growling, class 0'
    )

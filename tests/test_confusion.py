"""Tests that the confusion matrix has every count, and says which labels it leaves out."""

import collections
import re

import numpy as np

from stattn_jax.explain import confusion


def counts(table):
    found = re.findall(r'data-true="(.*?)" data-predicted="(.*?)".*?>(\d+)<', table)
    return {(true, predicted): int(count) for true, predicted, count in found}


def test_it_has_every_count():
    rng = np.random.default_rng(0)
    pairs = [tuple(pair) for pair in rng.choice(list('abcd'), size=(50, 2))]
    assert counts(confusion.table(pairs)) == collections.Counter(pairs)
    assert confusion.table([]) == ''


def test_with_many_labels_it_has_those_of_the_most_clips_and_counts_the_rest():
    pairs = [(f'{i:02}', f'{i:02}') for i in range(40) for _ in range(40 - i)]
    table = confusion.table(pairs)
    assert counts(table) == {pair: count for pair, count in collections.Counter(pairs).items() if count > 10}
    assert '30 of 40 labels' in table and f'{sum(range(11, 41))} of the {sum(range(1, 41))} labelled clips' in table


def test_labels_never_become_markup():
    table = confusion.table([('<b>', '"><script>')])
    assert '<b>' not in table and '<script>' not in table

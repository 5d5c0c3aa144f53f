"""Tests that random values of a clip are the same on any number of devices."""

import jax
import numpy as np
import pytest

from stattn_jax.training.sharded_random import ShardedRandom

KEY = jax.random.key(7)
CASES = {
    'uniform': (jax.random.uniform, (), {'shape': (3,), 'minval': 2.0, 'maxval': 5.0}),
    'bernoulli': (jax.random.bernoulli, (0.4,), {'shape': (2, 5)}),
    'randint': (jax.random.randint, (), {'minval': 0, 'maxval': 9, 'shape': (4,)}),
    'beta': (jax.random.beta, (0.5, 0.5), {}),
}


@pytest.mark.parametrize('name', CASES)
def test_four_devices_draw_the_same_numbers_as_one(name):
    sampler, args, options = CASES[name]
    one = ShardedRandom(8).sample(sampler, KEY, *args, **options)
    four = jax.pmap(lambda _: ShardedRandom(2, 'data').sample(sampler, KEY, *args, **options), axis_name='data')(
        np.zeros(4)
    )
    np.testing.assert_array_equal(np.asarray(four).reshape(one.shape), one)
    assert one.shape == (8, *options.get('shape', ())) and len(np.unique(one)) > 1
    shape = (8, *options.get('shape', ()))
    np.testing.assert_array_equal(one, sampler(KEY, *args, **options | {'shape': shape}))

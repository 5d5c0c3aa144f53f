"""Eight simulated CPU devices for the whole suite; set before any backend is made."""

import jax

jax.config.update('jax_num_cpu_devices', 8)

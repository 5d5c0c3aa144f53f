# It sets the level of XLA's log, before data_prep.extract imports JAX.
import stattn_jax  # noqa: F401

"""The optimiser and its schedule: gradient clipping, AdamW or SGD, linear warm-up and cosine decay."""

import jax
import jax.numpy as jnp
import optax

# Smallest number of elements of a leaf for which computing the sum of squares in eight parts pays off.
_LARGE = 2**16


def make_schedule(*, lr: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Returns a linear warm-up from 0 to `lr` over `warmup_steps`, then a cosine decay to 0 at `total_steps`."""
    return optax.warmup_cosine_decay_schedule(0.0, lr, warmup_steps, max(total_steps, warmup_steps + 1))


def make_optimiser(
    schedule: optax.Schedule,
    *,
    name: str,
    weight_decay: float,
    clip_norm: float,
    momentum: float,
    visual_lr: float = 1.0,
    audio_lr: float = 1.0,
    layer_decay: float = 1.0,
) -> optax.GradientTransformation:
    """Returns 'adamw' or 'sgd' after clipping by the global norm; weight decay applies only to matrices and kernels.

    visual_lr, audio_lr: factors of the learning rate for all parameters of a trunk.
    layer_decay: a factor from layer to layer of a transformer trunk, from its last block backwards (layer-wise decay of
      Clark et al., arXiv 2003.10555).

    Raises ValueError for another name.
    """
    if name == 'adamw':
        rule = optax.adamw(schedule, weight_decay=weight_decay, mask=decay_mask)
    elif name == 'sgd':
        rule = optax.chain(
            optax.add_decayed_weights(weight_decay, mask=decay_mask),
            optax.sgd(schedule, momentum=momentum, nesterov=True),
        )
    else:
        raise ValueError(f"config.optim.name is {name!r}; expected 'adamw' or 'sgd'")
    factors = {'visual': visual_lr, 'audio': audio_lr}
    if set(factors.values()) == {1.0} and layer_decay == 1.0:
        return optax.chain(_clip(clip_norm), rule)
    return optax.chain(_clip(clip_norm), rule, _scale_trunks(factors, layer_decay))


def _scale_trunks(factors: dict[str, float], layer_decay: float) -> optax.GradientTransformation:
    """Multiplies the updates of each trunk's parameters by `learning_rate_factor`.

    The updates include the weight decay, which is thus scaled too.
    """

    def scale(updates, _):
        depths = {name: _depth(updates.get(name, {})) for name in factors}
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x * learning_rate_factor([k.key for k in path], factors, layer_decay, depths), updates
        )

    return optax.stateless(scale)


def _depth(trunk) -> int:
    """Returns the number of blocks of a transformer trunk; 0 for any other trunk."""
    return len(trunk['blocks']) if 'cls_token' in trunk else 0


def learning_rate_factor(path: list, factors: dict[str, float], layer_decay: float, depths: dict[str, int]) -> float:
    """Returns the factor of the learning rate for the parameter at `path`, a list of keys that starts at the model.

    factors: the factor of each trunk.
    depths: the number of blocks of each trunk, 0 where it is not a transformer.

    Embeddings count as the layer before block 0.
    """
    trunk = path[0]
    if trunk not in factors:
        return 1.0
    below = 0
    if depths[trunk]:
        is_block, is_last = path[1] == 'blocks', path[1].startswith('norm')
        below = depths[trunk] - 1 - int(path[2]) if is_block else 0 if is_last else depths[trunk]
    return factors[trunk] * layer_decay**below


def _clip(most: float) -> optax.GradientTransformation:
    """Clips gradients as optax.clip_by_global_norm does, up to rounding, but computes the norm with `norm`.

    training/step.py reports the norm of the gradients with the same function. A factor for all leaves, unlike a
    division in each, needs no kernel of its own for each shape, and XLA compiles every kernel by itself on a CPU.
    """

    def clip(grads, _):
        length = norm(grads)
        factor = jnp.where(length < most, 1.0, most / length)
        return jax.tree.map(lambda x: x * factor.astype(x.dtype), grads)

    return optax.stateless(clip)


def norm(tree) -> jax.Array:
    """Computes the Euclidean norm of all leaves together.

    It equals optax.tree.norm, in a form that XLA computes fast on a CPU (docs/log.md, sums on the CPU) and compiles
    fast: small leaves are joined, because every sum costs as much to compile as a large one.
    """
    leaves = jax.tree.leaves(tree)
    small = [x.reshape(-1) for x in leaves if x.size < _LARGE]
    large = [x for x in leaves if x.size >= _LARGE]
    joined = [jnp.concatenate(small)] if small else []
    return jnp.sqrt(sum(_sum_of_squares(x) for x in joined + large))


def _sum_of_squares(x):
    if x.size < _LARGE or x.size % 8:
        return jnp.sum(jnp.square(x))
    # Eight parts are added element by element first, because XLA reduces an array at a quarter of that speed.
    stretches = x.reshape(8, -1)
    return jnp.sum(sum(jnp.square(stretches[i]) for i in range(8)))


def decay_mask(params):
    """Returns True for the parameters of two or more axes."""
    return jax.tree.map(lambda x: x.ndim > 1, params)

"""A trained network as pure functions of clips, and the explanations that it gives of itself."""

import copy
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx

from stattn_jax import assemble, attribution, run
from stattn_jax.attribution import ClipArrays, Map
from stattn_jax.attribution.arrays import Array
from stattn_jax.models import contributions
from stattn_jax.models.encoders import Encoders
from stattn_jax.training import step

# Explanations that a network can give of itself (see `own`).
OWN = ('terms', 'own', 'attention')


def first(names: Iterable[str]) -> str | None:
    """Returns the explanation that represents a network, or None if there is none.

    This is the network's own explanation if it has one, otherwise Grad-CAM, otherwise any.
    """
    return next((name for name in (*OWN, 'grad_cam') if name in names), next(iter(names), None))


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network: its graph definition, its arrays, the run's config and the facts of its data."""

    graphdef: nnx.GraphDef
    state: step.State
    config: ml_collections.ConfigDict
    facts: run.DataFacts

    @property
    def binary(self) -> bool:
        """Whether the classes have an independent sigmoid each."""
        return run.is_binary(self.config, self.facts)

    @property
    def variables(self) -> dict[str, Any]:
        """Parameters and statistics: the part of the state that its outputs depend on."""
        return {'params': self.state['params'], 'rest': self.state['rest']}

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of its cells."""
        return self.classifier(self.variables).grid

    @functools.cached_property
    def own(self) -> Callable:
        """The function `own` below, compiled once, as a function of clips and classes."""
        return self.compile(own)

    def module(self, variables: dict[str, Any]) -> Encoders:
        """Returns the network with these variables, such as those of `fresh`."""
        return nnx.merge(self.graphdef, variables['params'], variables['rest'])

    def classifier(self, variables: dict[str, Any]) -> attribution.Classifier:
        """Returns the network with these variables in the form that stattn_jax/attribution explains."""
        side = self.config.model.frame_size
        return attribution.of_model(self.module(variables), side, side)

    def compile(self, function: Callable) -> Callable:
        """Compiles `function(model, *arrays)` into a function of the arrays.

        The variables are arguments of the compiled program, not constants.
        """
        compiled = jax.jit(lambda variables, *arrays: function(self.module(variables), *arrays))
        return functools.partial(compiled, self.variables)

    def fresh(self, seed: int) -> dict[str, Any]:
        """Returns the variables of this network before training, initialised with another seed."""
        return self._draw(jax.random.key(seed))

    @functools.cached_property
    def _draw(self):
        @jax.jit
        def draw(key):
            model = assemble.build_model(self.config, self.facts.shape(self.config), None, nnx.Rngs(key))
            # Flax declares any number of states.
            _, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
            return {'params': nnx.as_pure(params), 'rest': nnx.as_pure(rest)}

        return draw


def load(workdir: pathlib.Path, facts: run.DataFacts) -> Network:
    """Loads the network of a finished run, for clips of the form in `facts`, so that all gradients flow.

    A network that was trained on extracted features then reads frames. stop_gradient_evidence is turned off: training
    may stop gradients at the evidence, explanations must not.
    """
    trained = run.load(str(workdir), devices=jax.devices()[:1])
    config = copy.deepcopy(trained.config)
    config.model.stop_gradient_evidence = False
    graphdef, *_ = run.make_state(config, facts, None, abstract=True)
    return Network(graphdef, trained.state, config, facts)


def in_batches(compiled: Callable, clips: ClipArrays, classes_n: np.ndarray, chunk: int = 20) -> list:
    """Runs `compiled(clips, classes)` on `chunk` clips at a time; returns a list of NumPy results.

    The last batch may be smaller.
    """
    return [
        jax.device_get(compiled(jax.tree.map(lambda x, i=i: x[i : i + chunk], clips), classes_n[i : i + chunk]))
        for i in range(0, len(classes_n), chunk)
    ]


def explain_itself(net: Network, clips: ClipArrays, classes_n: np.ndarray) -> tuple[np.ndarray, dict[str, 'TimedMap']]:
    """Runs `own` on any number of clips: logits [n c], and the network's own explanations, as NumPy arrays."""
    return jax.tree.map(lambda *x: np.concatenate(x), *in_batches(net.own, clips, classes_n))


class TimedMap(NamedTuple):
    """An explanation: its map, and `when` [t], the importance of each segment."""

    map: Map
    when: Array


def timed(map_: Map) -> TimedMap:
    """Returns a map as an explanation whose `when` is the sum over each segment."""
    return TimedMap(map_, map_.visual.sum(-1) + map_.audio)


def own(model, clips: ClipArrays, classes_b: jax.Array) -> tuple[jax.Array, dict[str, TimedMap]]:
    """Returns the logits [b c], and the network's own explanations by name; {} if the network has none.

    STAN has `terms`, the sum that makes the logit, and `attention`, the weights of that sum. Others have `own`. A
    network with values for segments only gets the same value for every cell of a segment; if its spatial map is
    comparable only within a frame, the map is multiplied by the softmax of its values over time.
    """
    logits, out = model(*clips, train=False)
    if model.additive:
        beta_bmt = jnp.take_along_axis(out['beta'], classes_b[:, None, None, None], axis=-1)[..., 0]
        weights = Map(beta_bmt[:, 0, :, None] * out['alpha'].mean(2), beta_bmt[:, 1])
        attention = TimedMap(weights, beta_bmt.sum(1))
        return logits, {'terms': timed(Map(*contributions.contributions(out, classes_b))), 'attention': attention}
    where_bts, when_bt = model.maps(out, classes_b)
    if when_bt is None:
        return logits, {}
    if where_bts is None:
        cells = np.prod(model.grid(*clips.frames.shape[2:4]))
        where_bts = jnp.broadcast_to(when_bt[..., None], (*when_bt.shape, cells))
    elif model.where_by_frame:
        weight_bt = jax.nn.softmax(jnp.where(clips.valid, when_bt, -jnp.inf), axis=1)
        where_bts = where_bts * weight_bt[..., None]
    return logits, {'own': TimedMap(Map(where_bts, when_bt), when_bt)}

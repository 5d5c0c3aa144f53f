"""AVEL (Tian et al., arXiv 1803.08842): audio-guided attention, a BiLSTM per modality, the maximum over segments.

There are two forms, because the released code (github.com/YapengTian/AVE-ECCV18, models_weakly.py) computes a different
attention from the paper:

    paper   score of cell i = w . tanh(P u_i + Q a),        Q a one number for each hidden unit, the same for all cells
    code    score of cell i = w . tanh(P u_i + (Q a)_i 1),  Q a one number for each cell, the same for all hidden units

In the code's form the audio selects positions: the code runs only because there are 49 hidden units and 49 cells, the
attention does not follow a moving object, and even equal cells get unequal weights. Here the number of cells is that of
the frame size for which the model was built. Training is weakly supervised, by the maximum of the segments' scores, and
without the softmax that the code has inside the network.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.baselines.compared import Compared, Evidence, Maps, Out, Sizes, of_class
from stattn_jax.models.layers.dense import Linear
from stattn_jax.models.pooling import largest

XAVIER = nnx.initializers.xavier_uniform()


class BiLstm(nnx.Module):
    """A bidirectional LSTM over the present segments: x [b t d], there bool [b t] -> [b t 2e], 0 for absent ones."""

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs):
        self.ways = nnx.List([nnx.OptimizedLSTMCell(inputs, hidden, rngs=rngs) for _ in range(2)])

    def __call__(self, x_btd: jax.Array, there_bt: jax.Array) -> jax.Array:
        steps = (x_btd.swapaxes(0, 1), there_bt.T[..., None])
        both = []
        for cell, reverse in zip(self.ways, (False, True)):

            def step(carry, inputs, cell=cell):
                x, there = inputs
                new, states = cell(carry, x)
                # Absent segments leave the state unchanged.
                return jax.tree.map(lambda a, b: jnp.where(there, a, b), new, carry), states * there

            rest = jnp.zeros((len(x_btd), cell.hidden_features))
            both.append(jax.lax.scan(step, (rest, rest), steps, reverse=reverse)[1])
        return jnp.concatenate(both, axis=-1).swapaxes(0, 1)


class AvelPaper(Compared):
    """AVEL with the attention of the paper, where the audio selects the content of cells."""

    by_cell = False
    where_by_frame = True

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, **trunks):
        super().__init__(sizes, rngs=rngs, **trunks)
        rows, columns = self.grid(*sizes.frame)
        d, hidden = sizes.width, rows * columns if self.by_cell else sizes.hidden
        self.seen = Linear(d, d, kernel_init=XAVIER, rngs=rngs)
        self.heard = Linear(d, d, kernel_init=XAVIER, rngs=rngs)
        plain = {'use_bias': False, 'kernel_init': XAVIER, 'rngs': rngs}
        self.of_seen, self.of_heard = Linear(d, hidden, **plain), Linear(d, hidden, **plain)
        self.score = Linear(hidden, 1, **plain)
        self.lstms = nnx.List([BiLstm(d, sizes.hidden, rngs=rngs) for _ in range(2)])
        self.joint = Linear(4 * sizes.hidden, sizes.hidden, kernel_init=XAVIER, rngs=rngs)
        self.head = Linear(sizes.hidden, sizes.classes, kernel_init=XAVIER, rngs=rngs)

    def classify(self, evidence: Evidence) -> tuple[jax.Array, Out]:
        query = self.of_heard(nnx.relu(self.heard(evidence.audio)))
        query = query[..., None] if self.by_cell else query[:, :, None]
        scores = self.score(jnp.tanh(self.of_seen(nnx.relu(self.seen(evidence.values))) + query))[..., 0]
        weights = jax.nn.softmax(scores, axis=2, where=evidence.cells)
        picture = jnp.einsum('bts,btsd->btd', weights, evidence.values, precision='highest')
        states = [
            lstm(x, evidence.units[:, m]) for m, (lstm, x) in enumerate(zip(self.lstms, (picture, evidence.audio)))
        ]
        segments = self.head(nnx.relu(self.joint(nnx.relu(jnp.concatenate(states[::-1], axis=-1)))))
        there = evidence.segments[..., None]
        logits = largest(jnp.where(there, segments, jnp.finfo(jnp.float32).min), 1)
        return logits, {'weights': weights, 'segments': jnp.where(there, segments, 0.0)}

    def maps(self, out: Out, classes_b: jax.Array) -> Maps:
        """Returns the attention within each frame (the same for all classes), and the segments' scores of the class."""
        return out['weights'], of_class(out['segments'], classes_b)


class AvelCode(AvelPaper):
    """AVEL with the attention of the released code, where the audio selects positions."""

    by_cell = True

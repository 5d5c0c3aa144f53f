"""The space-time attention network: every logit is a sum of contributions of picture cells and sound segments.

Nothing non-linear stands after the attention, so that `logit_c = bias_c + sum_mt beta segment_scores` holds exactly; the
contributions of explain/contributions.py are its terms. Source: arXiv 2105.01517, read as docs/design.md says.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models.attention import SpatialAttention, TemporalAttention
from stattn_jax.models.audio import make_audio
from stattn_jax.models.visual import make_visual, normalise

# Fixed shift and scale of log(mel + 0.01), whose silence is -4.6 and whose loud bands reach 3.
MEL_SHIFT, MEL_SCALE = -3.0, 2.0


class Stan(nnx.Module):
    """Frames and log-mel of a clip's segments to class logits with their attention (docs/design.md lists `out`).

    `detach_evidence` keeps the gradient of the sound-steered logits away from the visual evidence (trunk, values, head), which
    then learns only from losses on `cell_values`: what a cell says must not depend on which cell the sound picks.
    `channels`: numbers in a pixel (or feature cell) and in a cell (or feature frame) of the sound, as the data's spec has them.
    """

    def __init__(
        self,
        classes: int,
        *,
        channels: tuple[int, int] = (3, 1),
        visual: str = 'tiny',
        audio: str = 'tiny',
        width: int = 128,
        heads: int = 1,
        hidden: int = 64,
        uniform_space: bool = False,
        uniform_time: bool = False,
        detach_evidence: bool = True,
        dtype: str = 'float32',
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.heads, self.detach_evidence = jnp.dtype(dtype), heads, detach_evidence
        self.normalised = (visual != 'precomputed', audio != 'precomputed')
        options = {'width': width, 'axis_name': axis_name, 'dtype': self.dtype, 'rngs': rngs}
        self.visual = make_visual(visual, inputs=channels[0], **options)
        self.audio = make_audio(audio, inputs=channels[1], **options)
        self.value = nnx.Linear(self.visual.width, width, rngs=rngs)
        self.audio_out = nnx.Linear(self.audio.width, width, rngs=rngs)
        self.space = SpatialAttention(
            self.visual.width, width, heads=heads, head_width=width // heads, uniform=uniform_space, rngs=rngs
        )
        self.time = TemporalAttention(width, width, classes, hidden=hidden, uniform=uniform_time, rngs=rngs)
        init = nnx.initializers.lecun_normal()
        self.visual_head = nnx.Param(init(rngs.params(), (width, classes)))
        self.audio_head = nnx.Param(init(rngs.params(), (width, classes)))
        self.bias = nnx.Param(jnp.zeros((classes,)))

    def __call__(
        self,
        frames: jax.Array,
        log_mel: jax.Array,
        valid: jax.Array,
        *,
        train: bool,
        cell_mask: jax.Array | None = None,
        unit_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """frames [b t H W 3] in 0..1, log_mel [b t f k], valid bool [b t] -> logits [b c], out; features take their places.

        `cell_mask` bool [b t s] and `unit_mask` bool [b m t] take cells and (modality, segment) units out of both softmaxes,
        in training (dropout) as in a what-if question.
        """
        with jax.named_scope('visual'):
            v_btsd = self._cells(frames, train)
        with jax.named_scope('audio'):
            a_btd = self.sound(log_mel, train=train)
        value = self.value(v_btsd.astype(jnp.float32))
        b, t, s, d = value.shape
        out = self.attend(v_btsd, value, a_btd, valid, cell_mask=cell_mask, unit_mask=unit_mask)
        logits = self.bias[...] + jnp.sum(out['beta'] * out['segment_scores'], axis=(1, 2))
        out |= {
            'cell_values': value.reshape(b, t, s, self.heads, -1).transpose(0, 1, 3, 2, 4),
            'audio': a_btd,
            'cells': v_btsd,
            'values': value,
            'visual_head': self.visual_head[...].T.reshape(-1, self.heads, d // self.heads),
            'audio_head': self.audio_head[...].T,
            'bias': self.bias[...],
        }
        return logits, out

    def attend(
        self,
        v_btsd: jax.Array,
        value_btsd: jax.Array,
        a_btd: jax.Array,
        valid: jax.Array,
        *,
        cell_mask: jax.Array | None = None,
        unit_mask: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Where and when, from cells, their values and the sound of one clip or of two: alpha, null, beta, share, alone, segment_scores."""
        head = self.visual_head[...]
        if self.detach_evidence:
            head, v_btsd, value_btsd = jax.tree.map(jax.lax.stop_gradient, (head, v_btsd, value_btsd))
        b, t, s, d = value_btsd.shape
        with jax.named_scope('space'):
            alpha, null = self.space(v_btsd, a_btd, cell_mask)
            value_btsne = value_btsd.reshape(b, t, s, self.heads, -1)
            pooled = jnp.einsum('btns,btsne->btne', alpha, value_btsne, precision='highest').reshape(b, t, d)
        with jax.named_scope('time'):
            valid_bmt = jnp.broadcast_to(valid[:, None], (b, 2, t))
            beta, share, alone = self.time(pooled, a_btd, valid_bmt if unit_mask is None else valid_bmt & unit_mask)
        visual = jnp.einsum('btd,dc->btc', pooled, head, precision='highest')
        audio = jnp.einsum('btd,dc->btc', a_btd, self.audio_head[...], precision='highest')
        scores = jnp.stack([visual, audio], axis=1)
        return {'alpha': alpha, 'null': null, 'beta': beta, 'share': share, 'alone': alone, 'segment_scores': scores}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells that frames of this size give."""
        return -(-height // self.visual.stride), -(-width // self.visual.stride)

    def match(self, cells: jax.Array, audio: jax.Array) -> jax.Array:
        """Log-odds that something in the segment's picture, rather than nothing, makes its sound: [b t], head mean.

        `cells` [b t s d] and `audio` [b t d] as in `out`, of one clip or of two different ones.
        """
        alpha, null = self.space(cells, audio, None)
        seen = jnp.clip(alpha.sum(-1), 1e-6)
        return jnp.mean(jnp.log(seen) - jnp.log(jnp.clip(null, 1e-6)), axis=-1)

    def sound(self, log_mel: jax.Array, *, train: bool) -> jax.Array:
        """log_mel [b t f k] -> [b t d], what `attend` takes; segments do not depend on each other."""
        b, t = log_mel.shape[:2]
        x = (log_mel - MEL_SHIFT) / MEL_SCALE if self.normalised[1] else log_mel
        x = x.reshape(b * t, *log_mel.shape[2:]).astype(self.dtype)
        return self.audio_out(self.audio(x, train=train).astype(jnp.float32)).reshape(b, t, -1)

    def _cells(self, frames, train):
        b, t = frames.shape[:2]
        x = normalise(frames) if self.normalised[0] else frames
        x = x.reshape(b * t, *frames.shape[2:]).astype(self.dtype)
        cells = self.visual(x, train=train)
        return cells.reshape(b, t, -1, cells.shape[-1])

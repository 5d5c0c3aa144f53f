"""The space-time attention network: every logit is a sum of contributions of visual cells and audio segments.

There is no non-linearity after the attention, so `logit_c = bias_c + sum_mt beta segment_scores` holds exactly;
models/contributions.py computes the terms. Source: arXiv 2105.01517, as interpreted in docs/design.md.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from stattn_jax.models import contributions
from stattn_jax.models.attention import SpatialAttention, TemporalAttention
from stattn_jax.models.encoders import Encoders


class SpaceTimeAttention(Encoders):
    """Maps the frames and log-mel of a clip's segments to class logits and `out` (listed in docs/design.md).

    `stop_gradient_evidence` stops the gradient of the audio-guided logits from reaching the visual evidence (trunk,
    values, head), which then learns only from losses on `cell_values`. This way the evidence of a cell does not depend
    on which cell the audio selects. `uniform_space`, `uniform_time`, and `guided`, `null_cell` or `class_time` set to
    False are ablations (models/attention.py).
    """

    additive = True

    def __init__(
        self,
        classes: int,
        *,
        width: int = 128,
        heads: int = 1,
        hidden: int = 64,
        uniform_space: bool = False,
        uniform_time: bool = False,
        stop_gradient_evidence: bool = True,
        guided: bool = True,
        null_cell: bool = True,
        class_time: bool = True,
        rngs: nnx.Rngs,
        **trunks,
    ):
        super().__init__(width=width, rngs=rngs, **trunks)
        self.heads, self.stop_gradient_evidence = heads, stop_gradient_evidence
        self.space = SpatialAttention(
            self.cell_width,
            width,
            heads=heads,
            head_width=width // heads,
            uniform=uniform_space,
            guided=guided,
            null_cell=null_cell,
            rngs=rngs,
        )
        self.time = TemporalAttention(
            width, width, classes, hidden=hidden, uniform=uniform_time, by_class=class_time, rngs=rngs
        )
        init = nnx.initializers.lecun_normal()
        self.visual_head = nnx.Param(init(rngs.params(), (width, classes)))
        self.audio_head = nnx.Param(init(rngs.params(), (width, classes)))
        self.bias = nnx.Param(jnp.zeros((classes,)))

    def forward_heads(
        self,
        v_btsd: jax.Array,
        a_btd: jax.Array,
        valid: jax.Array,
        *,
        cell_mask: jax.Array | None = None,
        unit_mask: jax.Array | None = None,
        modalities: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits [b c] and `out`; masked cells and units are left out of the softmaxes.

        Values and audio of a modality that a clip lacks are 0 in `out`, and its units have no weight.
        """
        value = self.value(v_btsd.astype(jnp.float32))
        if modalities is not None:
            value = jnp.where(modalities[:, 0, None, None, None], value, 0.0)
            a_btd = jnp.where(modalities[:, 1, None, None], a_btd, 0.0)
        b, t, s, d = value.shape
        keys = self.space.keys(jax.lax.stop_gradient(v_btsd) if self.stop_gradient_evidence else v_btsd)
        masks = {'cell_mask': cell_mask, 'unit_mask': unit_mask, 'modalities': modalities}
        out = self.attend_and_score(keys, value, a_btd, valid, **masks)
        logits = self.bias[...] + jnp.sum(out['beta'] * out['segment_scores'], axis=(1, 2))
        out |= {
            'cell_values': value.reshape(b, t, s, self.heads, -1).transpose(0, 1, 3, 2, 4),
            'audio': a_btd,
            'cells': v_btsd,
            'keys': keys,
            'values': value,
            'visual_head': self.visual_head[...].T.reshape(-1, self.heads, d // self.heads),
            'audio_head': self.audio_head[...].T,
            'bias': self.bias[...],
        }
        return logits, out

    def attend_and_score(
        self,
        keys_btsne: jax.Array,
        value_btsd: jax.Array,
        a_btd: jax.Array,
        valid: jax.Array,
        *,
        cell_mask: jax.Array | None = None,
        unit_mask: jax.Array | None = None,
        modalities: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Returns the attention weights and the scores of all units, for keys and values of cells and for audio.

        The cells and the audio may be of different clips (mismatched audio). Values and audio of a modality that a clip
        lacks are 0.
        """
        head = self.visual_head[...]
        if self.stop_gradient_evidence:
            head, value_btsd = jax.lax.stop_gradient((head, value_btsd))
        b, t, s, d = value_btsd.shape
        paired_b = None if modalities is None else modalities.all(axis=1)
        with jax.named_scope('space'):
            alpha, null = self.space(keys_btsne, a_btd, cell_mask, paired_b)
            value_btsne = value_btsd.reshape(b, t, s, self.heads, -1)
            pooled = jnp.einsum('btns,btsne->btne', alpha, value_btsne, precision='highest').reshape(b, t, d)
        with jax.named_scope('time'):
            valid_bmt = jnp.broadcast_to(valid[:, None], (b, 2, t))
            match_bt = _log_odds(alpha, null)
            if paired_b is not None:
                match_bt = jnp.where(paired_b[:, None], match_bt, 0.0)
            if self.stop_gradient_evidence:
                # The match stays a measure of the audio's visible source, which the logits do not train.
                match_bt = jax.lax.stop_gradient(match_bt)
            units_bmt = valid_bmt if unit_mask is None else valid_bmt & unit_mask
            units_bmt = units_bmt if modalities is None else units_bmt & modalities[:, :, None]
            beta, beta_per_segment, beta_per_modality = self.time(pooled, a_btd, match_bt, units_bmt)
        visual = jnp.einsum('btd,dc->btc', pooled, head, precision='highest')
        audio = jnp.einsum('btd,dc->btc', a_btd, self.audio_head[...], precision='highest')
        scores = jnp.stack([visual, audio], axis=1)
        return {
            'alpha': alpha,
            'null': null,
            'beta': beta,
            'beta_per_segment': beta_per_segment,
            'beta_per_modality': beta_per_modality,
            'segment_scores': scores,
        }

    def maps(self, out: dict[str, jax.Array], classes_b: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the contributions to one class per clip: cells [b t s], and segments of both modalities [b t]."""
        visual_bts, audio_bt = contributions.contributions(out, classes_b)
        return visual_bts, visual_bts.sum(axis=2) + audio_bt

    def match(self, keys: jax.Array, audio: jax.Array) -> jax.Array:
        """Log-odds that something visible in the segment makes its sound, averaged over heads: [b t].

        `keys` [b t s n e] and `audio` [b t d] are as in `out`, of the same clip or of two different clips.
        """
        return _log_odds(*self.space(keys, audio, None))


def _log_odds(alpha_btns: jax.Array, null_btn: jax.Array) -> jax.Array:
    """Log-odds of the cells' total weight against the null cell's weight, averaged over heads: [b t]."""
    cells_btn = jnp.clip(alpha_btns.sum(-1), 1e-6)
    return jnp.mean(jnp.log(cells_btn) - jnp.log(jnp.clip(null_btn, 1e-6)), axis=-1)

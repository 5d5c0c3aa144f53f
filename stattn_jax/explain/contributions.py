"""The terms of the sum that makes a logit, from the model's `out` (docs/design.md): picture cells and sound segments.

    logit_c = bias_c + sum_ts visual_c(t, s) + sum_t audio_c(t)
    visual_c(t, s) = sum_n beta(0, t, c) alpha(t, n, s) value(t, n, s) . visual_head(c, n)
    audio_c(t) = beta(1, t, c) audio(t) . audio_head(c)

The null cell has value zero, so that it takes weight and contributes nothing. The zero point of these terms is
arbitrary (a constant moved from every score to the bias changes no logit but every term), hence `centred`. A term is
what this unit adds in this clip, not what the logit would lose without it. Everything is float32, whatever the trunks'
dtype. Read next: explanation.py.
"""

import jax
import jax.numpy as jnp
from jax.lax import Precision

Out = dict[str, jax.Array]


def contributions(out: Out, classes_b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Terms of one class per clip: visual [b t s] and audio [b t], in units of the logit."""
    beta_bmt = jnp.take_along_axis(out['beta'], classes_b[:, None, None, None], axis=-1)[..., 0]
    score_bt = jnp.take_along_axis(out['segment_scores'][:, 1], classes_b[:, None, None], axis=-1)[..., 0]
    head_bne = out['visual_head'][classes_b]
    cells_btns = jnp.einsum('btnse,bne->btns', out['cell_values'], head_bne, precision=Precision.HIGHEST)
    visual_bts = beta_bmt[:, 0, :, None] * jnp.sum(out['alpha'] * cells_btns, axis=2)
    return visual_bts, beta_bmt[:, 1] * score_bt


def all_contributions(out: Out) -> tuple[jax.Array, jax.Array]:
    """Terms of every class of one clip (`out` with b = 1): visual [c t s] and audio [c t]."""
    beta_mct = jnp.swapaxes(out['beta'][0], 1, 2)
    cells_ctns = jnp.einsum('tnse,cne->ctns', out['cell_values'][0], out['visual_head'], precision=Precision.HIGHEST)
    visual_cts = beta_mct[0, :, :, None] * jnp.sum(out['alpha'][0] * cells_ctns, axis=2)
    return visual_cts, beta_mct[1] * out['segment_scores'][0, 1].T


def centred(out: Out, mean_scores_mc: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Terms against an average clip: reference [c], visual [c t s], audio [c t]; they still sum to the logit (b = 1).

    With mu the training means of `unit_scores` and n heads, every score is counted from its mean:

        visual_c(t, s) = beta(0, t, c) sum_n alpha(t, n, s) (value(t, n, s) . visual_head(c, n) - mu(0, c) / n)
        audio_c(t) = beta(1, t, c) (audio(t) . audio_head(c) - mu(1, c))
        reference_c = bias_c + mu(0, c) sum_t beta(0, t, c) sum_ns alpha(t, n, s) / n + mu(1, c) sum_t beta(1, t, c)

    What the null cell takes is missing from both sums over s alike, so that it contributes zero here too. The reference
    is the logit of average scores under this clip's attention. Without the means the share of picture against sound is
    not defined: Javed et al., arXiv 2206.01794, give the additive form; the argument is that sum(beta) = 1.
    """
    visual_cts, audio_ct = all_contributions(out)
    beta_mct = jnp.swapaxes(out['beta'][0], 1, 2)
    visual_mean = beta_mct[0, :, :, None] * jnp.mean(out['alpha'][0], axis=1) * mean_scores_mc[0, :, None, None]
    audio_mean = beta_mct[1] * mean_scores_mc[1, :, None]
    reference_c = out['bias'] + jnp.sum(visual_mean, axis=(1, 2)) + jnp.sum(audio_mean, axis=1)
    return reference_c, visual_cts - visual_mean, audio_ct - audio_mean


def segment_logits(out: Out) -> tuple[jax.Array, jax.Array]:
    """What the network would say if a segment, or its picture or its sound alone, were all of the clip: [b t c] and [b m t c].

    Exact, since the weights over what is left of the softmax are its own renormalised: of one unit, 1. The bias alone where a
    segment is not valid.
    """
    unit_bmtc = out['bias'] + out['segment_scores']
    return out['bias'] + jnp.sum(out['share'] * out['segment_scores'], axis=1), unit_bmtc


def unit_scores(out: Out, valid_bt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums for the means that `centred` wants: add both over the training set, then divide score [m c] by weight [m 1].

    The picture's weight is the attention that fell on cells, so that the mean is that of a cell and not watered down by
    the null cell.
    """
    valid = valid_bt.astype(jnp.float32)
    scores_mc = jnp.einsum('bmtc,bt->mc', out['segment_scores'], valid, precision=Precision.HIGHEST)
    on_cells = jnp.sum(valid * jnp.mean(jnp.sum(out['alpha'], axis=-1), axis=-1))
    return scores_mc, jnp.stack([on_cells, jnp.sum(valid)])[:, None]


def residual(out: Out, logits_bc: jax.Array) -> jax.Array:
    """|bias + sum of terms - logit| of every class [c] of one clip (`out` with b = 1)."""
    visual_cts, audio_ct = all_contributions(out)
    return jnp.abs(out['bias'] + jnp.sum(visual_cts, axis=(1, 2)) + jnp.sum(audio_ct, axis=1) - logits_bc[0])

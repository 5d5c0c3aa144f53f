"""Computes the contributions of visual cells and audio segments to each logit, from the model's `out`.

The arrays of `out` are described in docs/design.md. A logit is the sum

    logit_c = bias_c + sum_ts visual_c(t, s) + sum_t audio_c(t)
    visual_c(t, s) = sum_n beta(0, t, c) alpha(t, n, s) value(t, n, s) . visual_head(c, n)
    audio_c(t) = beta(1, t, c) audio(t) . audio_head(c)

The null cell has value zero: it takes weight but contributes nothing. The zero point of the contributions is arbitrary
(moving a constant from every score to the bias changes every contribution but no logit); `centred` fixes it. A
contribution is what the unit adds in this clip, not the change of the logit if the unit were removed
(explain/counterfactuals.py computes that). Everything is float32, whatever the trunks' dtype is.
"""

import jax
import jax.numpy as jnp
from jax.lax import Precision

Out = dict[str, jax.Array]


def contributions(out: Out, classes_b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the contributions to one class per clip: visual [b t s] and audio [b t], in units of the logit."""
    beta_bmt = jnp.take_along_axis(out['beta'], classes_b[:, None, None, None], axis=-1)[..., 0]
    score_bt = jnp.take_along_axis(out['segment_scores'][:, 1], classes_b[:, None, None], axis=-1)[..., 0]
    head_bne = out['visual_head'][classes_b]
    cells_btns = jnp.einsum('btnse,bne->btns', out['cell_values'], head_bne, precision=Precision.HIGHEST)
    visual_bts = beta_bmt[:, 0, :, None] * jnp.sum(out['alpha'] * cells_btns, axis=2)
    return visual_bts, beta_bmt[:, 1] * score_bt


def centred_contributions(out: Out, classes_b: jax.Array, mean_scores_mc: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the contributions of `centred` for one class per clip: visual [b t s] and audio [b t]."""
    visual_bts, audio_bt = contributions(out, classes_b)
    beta_bmt = jnp.take_along_axis(out['beta'], classes_b[:, None, None, None], axis=-1)[..., 0]
    mean_mb = mean_scores_mc[:, classes_b]
    visual_mean = beta_bmt[:, 0, :, None] * jnp.mean(out['alpha'], axis=2) * mean_mb[0, :, None, None]
    return visual_bts - visual_mean, audio_bt - beta_bmt[:, 1] * mean_mb[1, :, None]


def all_contributions(out: Out) -> tuple[jax.Array, jax.Array]:
    """Returns the contributions to every class: visual [b c t s] and audio [b c t]."""
    beta_bmct = jnp.swapaxes(out['beta'], 2, 3)
    cells_bctns = jnp.einsum('btnse,cne->bctns', out['cell_values'], out['visual_head'], precision=Precision.HIGHEST)
    visual_bcts = beta_bmct[:, 0, :, :, None] * jnp.sum(out['alpha'][:, None] * cells_bctns, axis=3)
    return visual_bcts, beta_bmct[:, 1] * jnp.swapaxes(out['segment_scores'][:, 1], 1, 2)


def centred(out: Out, mean_scores_mc: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns contributions relative to an average clip: reference [b c], visual [b c t s] and audio [b c t].

    They still sum to the logit. With mu the training means of the scores (training/step.py, mean_scores) and n heads,
    the mean is subtracted from every score:

        visual_c(t, s) = beta(0, t, c) sum_n alpha(t, n, s) (value(t, n, s) . visual_head(c, n) - mu(0, c) / n)
        audio_c(t) = beta(1, t, c) (audio(t) . audio_head(c) - mu(1, c))
        reference_c = bias_c + mu(0, c) sum_t beta(0, t, c) sum_ns alpha(t, n, s) / n + mu(1, c) sum_t beta(1, t, c)

    The weight of the null cell is missing from both sums over s, so it contributes zero here too. The reference is the
    logit that average scores would give under this clip's attention. Without the means, the shares of the visual and
    the audio modality are not defined. Javed et al., arXiv 2206.01794, give the additive form; the argument is that
    sum(beta) = 1.
    """
    visual_bcts, audio_bct = all_contributions(out)
    beta_bmct = jnp.swapaxes(out['beta'], 2, 3)
    on_cell_bts = jnp.mean(out['alpha'], axis=2)
    visual_mean = beta_bmct[:, 0, :, :, None] * on_cell_bts[:, None] * mean_scores_mc[0, :, None, None]
    audio_mean = beta_bmct[:, 1] * mean_scores_mc[1, :, None]
    reference_bc = out['bias'] + jnp.sum(visual_mean, axis=(2, 3)) + jnp.sum(audio_mean, axis=2)
    return reference_bc, visual_bcts - visual_mean, audio_bct - audio_mean


def record(logits_bc: jax.Array, out: Out, mean_scores_mc: jax.Array, binary: bool) -> Out:
    """Returns the arrays of an Explanation for a batch of clips, with cells not yet arranged in rows and columns.

    bias and mean_scores have no axis b. The function is compiled together with the forward pass. `binary`:
    probabilities are an independent sigmoid per class instead of a softmax.
    """
    logits_bc = logits_bc.astype(jnp.float32)
    reference, visual, audio = centred(out, mean_scores_mc)
    return {
        'logits': logits_bc,
        'probabilities': jax.nn.sigmoid(logits_bc) if binary else jax.nn.softmax(logits_bc),
        'bias': out['bias'],
        'mean_scores': mean_scores_mc,
        'reference': reference,
        'visual': visual,
        'audio': audio,
        'alpha': jnp.mean(out['alpha'], axis=2),
        'null': jnp.mean(out['null'], axis=2),
        'beta': out['beta'],
        'segment_scores': out['segment_scores'],
    }


def segment_logits(out: Out) -> tuple[jax.Array, jax.Array]:
    """Returns the logits of a clip of one segment alone [b t c], and of one modality of one segment [b m t c].

    They are exact, because the softmax over the remaining units equals the original weights renormalised; a single unit
    has weight 1. Where a segment is not valid, the logits [b t c] are the bias.
    """
    unit_bmtc = out['bias'] + out['segment_scores']
    return out['bias'] + jnp.sum(out['beta_per_segment'] * out['segment_scores'], axis=1), unit_bmtc

"""The network to explain, as functions of arrays: `Classifier(function, grid=...)`, or `of_model` for our networks."""

import dataclasses
from collections.abc import Callable

import jax

from stattn_jax.attribution.arrays import Array, ClipArrays
from stattn_jax.models.encoders import Encoders


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network in one stage, `head` alone, or in two stages: encoders of single segments, then `head`.

    A network in one stage is any JAX function of clips; `Classifier(function, grid=(4, 4))` is complete. Two stages
    make occlusion, RISE and removal faster, since each changed frame is encoded once, and Grad-CAM needs them.

    Attributes:
      head: head(frames [b t H W 3], log_mel [b t f k], valid bool [b t]) -> logits [b c], in JAX. With encoders, it
        gets their results in place of frames and log_mel. It gets None for a modality that is not used.
      grid: rows h and columns w of the cells of a visual map; H and W are multiples of them.
      frame_encoder: maps frames [b t H W 3] to cells [b t s d], each frame by itself; s = h w.
      audio_encoder: maps log_mel [b t f k] to vectors [b t d], each segment by itself.
      masks: whether `head` also takes cell_mask, bool [b t s], and unit_mask, bool [b 2 t] (visual, audio), which are
        False for those that it must ignore. Only the removal setting 'feature' needs them.
      uses_video, uses_audio: whether the network uses the modality; the map of an unused one is 0.
    """

    head: Callable[..., jax.Array]
    grid: tuple[int, int]
    frame_encoder: Callable[..., jax.Array] | None = None
    audio_encoder: Callable[..., jax.Array] | None = None
    masks: bool = False
    uses_video: bool = True
    uses_audio: bool = True

    def __call__(self, clips: ClipArrays) -> jax.Array:
        """Returns the logits [b c] of a batch of clips."""
        return self.head(self.encode_frames(clips.frames), self.encode_audio(clips.log_mel), clips.valid)

    def encode_frames(self, frames: Array) -> Array | None:
        """Returns the visual input of `head`: the encoded frames, or the frames themselves without an encoder."""
        if not self.uses_video:
            return None
        return frames if self.frame_encoder is None else self.frame_encoder(frames)

    def encode_audio(self, log_mel: Array) -> Array | None:
        """Returns the audio input of `head`: the encoded log-mel, or the log-mel itself without an encoder."""
        if not self.uses_audio:
            return None
        return log_mel if self.audio_encoder is None else self.audio_encoder(log_mel)


def of_model(model: Encoders, height: int, width: int) -> Classifier:
    """Returns one of our networks (stattn_jax/models) for frames of this height and width.

    Build STAN with `stop_gradient_evidence=False`: its stop_gradient changes no logit, but hides the visual cells'
    evidence from every gradient.
    """
    return Classifier(
        head=lambda *units, **masks: model.forward_heads(*units, **masks)[0],
        grid=model.grid(height, width),
        frame_encoder=lambda frames: model.cells(frames, train=False),
        audio_encoder=lambda log_mel: model.sound(log_mel, train=False),
        masks=True,
        uses_video=model.uses_video,
        uses_audio=model.uses_audio,
    )

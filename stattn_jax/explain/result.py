"""`Explanation`, the result of `Model.explain`: the record of one clip with methods that describe it and write files.

explanation.py defines the record and its arithmetic.
"""

import html
import os
from typing import Self

from stattn_jax import files
from stattn_jax.explain import record_files, segment_files, sentences
from stattn_jax.explain.explanation import BEST, ExplanationData, GroundTruth


class Explanation(ExplanationData):
    """One explained clip (the fields are those of ExplanationData) with methods that write its files.

    Only `save_video` needs the source video; the other methods also work on a record that was read from its npz.
    """

    # figure, page and video are imported by the methods that need them, because using the numbers should not take the
    # second that the import of Matplotlib takes.

    def sentence(self, label: str | None = None) -> str:
        """Describes the contributions to a class (default: the best one) in words."""
        return sentences.sentence(self, self.class_index(label))

    def notices(self, label: str | None = None) -> list[str]:
        """Returns warnings about the clip and the evidence for a class (default: the best one), most important first.

        The clip is unlike the training clips, silent, cut or damaged, or one modality contributes next to nothing.
        """
        return sentences.notices(self, self.class_index(label))

    def save_json(self, path: str | os.PathLike, label: str | None = None) -> None:
        """Writes schema stattn_jax.explanation/4 (docs/explanation.schema.json): everything but frames and log-mel.

        Numbers have seven significant digits. Maps are written for the BEST classes and for `label`, the target
        (without it: the best class).
        """
        record_files.write_json(self, path, self.class_index(label), BEST)

    def save_npz(self, path: str | os.PathLike) -> None:
        """Writes every array under its name, frames as `frame_0`, ... (JPEG bytes), the rest as JSON in `header`."""
        record_files.write_npz(self, path)

    @classmethod
    def load_npz(cls, path: str | os.PathLike) -> Self:
        """Reads a file that `save_npz` wrote; raises ValueError for another schema."""
        return cls(**record_files.read_npz(path))

    def save_figure(self, path: str | os.PathLike, label: str | None = None, truth: GroundTruth | None = None) -> None:
        """Draws frames with heat maps, the log-mel and signed bars per segment for a class (default: the best one).

        The suffix of `path` names the format: .png, .pdf or .svg; ValueError for another one. The frames are those of
        the source at its resolution, up to 1280 pixels, or those of the record where there is no source.
        """
        from stattn_jax.explain import figure

        figure.draw(self, self.class_index(label), truth or GroundTruth(), path)

    # The name from before figures could be PDF and SVG.
    save_png = save_figure

    def save_html(self, path: str | os.PathLike, label: str | None = None, truth: GroundTruth | None = None) -> None:
        """Writes one HTML page that works offline: the clip with its audio, heat maps, the timeline and what-if."""
        from stattn_jax.explain import page

        files.write_text(path, page.render(self, label, truth))

    def save_video(self, path: str | os.PathLike, label: str | None = None, truth: GroundTruth | None = None) -> None:
        """Writes the explained part of the video as mp4 with its audio and the heat map of a class drawn over it.

        Raises ValueError if the record has no source file.
        """
        from stattn_jax.explain import video

        if self.source is None:
            raise ValueError(
                f'{path}: this explanation has no source video, because it was made from arrays or read from an npz; '
                'explain the video file'
            )
        video.write_overlay(self, path, label, truth or GroundTruth())

    def save_csv(self, path: str | os.PathLike) -> None:
        """Writes one row per segment: the terms of the best classes, attention weights and the strongest cell."""
        segment_files.write_csv(self, path)

    def save_vtt(self, path: str | os.PathLike) -> None:
        """Writes one WebVTT cue per segment, which describes it in words."""
        segment_files.write_vtt(self, path)

    def _repr_html_(self) -> str:
        """Returns the page for a notebook, in an iframe so that its styles and scripts do not affect the notebook."""
        from stattn_jax.explain import page

        document = html.escape(page.render(self), quote=True)
        title = html.escape(f'Explanation of {self.media["file"]}', quote=True)
        return f'<iframe title="{title}" srcdoc="{document}" style="width: 100%; height: 900px; border: 0"></iframe>'

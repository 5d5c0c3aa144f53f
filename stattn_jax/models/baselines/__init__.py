"""The compared models (baselines): they differ from STAN only in the layers after the trunks.

Trunks, inputs and training step are the same. `KINDS` lists the models by their name in cfg.model.kind.
"""

from stattn_jax.models.baselines import avel, fusion, han, intrinsic, mbt
from stattn_jax.models.baselines.compared import Compared, Sizes

KINDS: dict[str, type[Compared]] = {
    'audio_only': fusion.AudioOnly,
    'visual_only': fusion.VisualOnly,
    'late_sum': fusion.LateSum,
    'concat': fusion.Concat,
    'film': fusion.Film,
    'gmu': fusion.Gmu,
    'lmf': fusion.Lmf,
    'mbt': mbt.Mbt,
    'cam': intrinsic.Cam,
    'mil': intrinsic.Mil,
    'proto': intrinsic.Proto,
    'avel_paper': avel.AvelPaper,
    'avel_code': avel.AvelCode,
    'han': han.Han,
}

__all__ = ['KINDS', 'Compared', 'Sizes']

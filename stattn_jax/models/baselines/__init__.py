"""The models that Stan is compared with: same trunks, same inputs, same step; only what comes behind the trunks
differs.

`KINDS` names them as cfg.model.kind does. Read next: compared.py.
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

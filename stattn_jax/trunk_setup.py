"""Checks that the trunks of a run fit its data, and loads the published weights with which the trunks begin.

weights/ reads the weight files, models/encoders.py applies frozen trunks, and data/extracted.py describes features that
a trunk extracted.
"""

from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from flax import traverse_util

from stattn_jax import models
from stattn_jax.command import RunError
from stattn_jax.data import extracted, features, records
from stattn_jax.data.spec import ClipSpec
from stattn_jax.models import encoders
from stattn_jax.models.trunks import registry
from stattn_jax.weights import find
from stattn_jax.weights.errors import WeightsError

MODALITIES = ('visual', 'audio')


def media_of(spec: records.Spec) -> ClipSpec | features.FeatureSpec:
    """Returns how the clips of a data set were cut, whether or not trunks have been run over them since."""
    return spec.media if isinstance(spec, extracted.ExtractedSpec) else spec


def parts_of(spec: records.Spec) -> tuple[extracted.Extraction | None, extracted.Extraction | None]:
    """Returns the extractions of the visual and the audio trunk, each None where that trunk has not been run."""
    return spec.parts if isinstance(spec, extracted.ExtractedSpec) else (None, None)


def check(config: ml_collections.ConfigDict, spec: records.Spec, known: Sequence[dict[str, Any]] | None = None) -> None:
    """Raises RunError where the trunks cannot read the data: frames and audio, or features of some trunk.

    `known` is given for a trained run: where the weights of its trunks come from, as returned by `load`. It is None
    before training.
    """
    has_features = isinstance(spec, features.FeatureSpec)
    for modality, part in zip(MODALITIES, parts_of(spec)):
        name = config.model[modality]
        if has_features != (name == encoders.PRECOMPUTED):
            held = f'features of the trunk {part.trunk}' if part else 'pictures and sound'
            if isinstance(spec, features.FeatureSpec):
                held = f'features ({spec.source}); expected precomputed'
            raise RunError(
                f'config.model.{modality} is {name!r}, but {config.data.dir} holds {held}'
                + (
                    f'; give --config.model.{modality}={part.trunk} --config.model.{modality}_frozen=True'
                    if part
                    else '; use a config such as configs/ave_features.py for features, configs/own.py for videos'
                )
            )
        if part:
            _check_extracted(config, modality, part)
        elif not has_features:
            _check_media(config, modality, registry.find(modality, name), media_of(spec))
        if known is None:
            _check_frozen(config, modality, part)
        elif part and models.uses(config.model.kind)[modality]:
            _check_same(config, modality, part, known)


def check_augmentation(config: ml_collections.ConfigDict, spec: records.Spec) -> None:
    """Raises RunError for an augmentation of features where the data hold pixels, on which it has no effect."""
    pictures = not isinstance(spec, features.FeatureSpec) and parts_of(spec)[0] is None
    if pictures and config.augment.feature_dropout:
        raise RunError(
            f'config.augment.feature_dropout is {config.augment.feature_dropout}, but {config.data.dir} holds '
            'pictures; expected 0, or features: give --config.data.extract=True'
        )


def _check_frozen(config, modality, part) -> None:
    """Raises RunError for a frozen trunk without weights, and for frozen or given weights of a precomputed one."""
    frozen, weights = config.model[f'{modality}_frozen'], config.model[f'{modality}_weights']
    if config.model[modality] == encoders.PRECOMPUTED and (frozen or weights):
        raise RunError(
            f"config.model.{modality} is 'precomputed', which learns from the start; expected "
            f"config.model.{modality}_frozen=False and config.model.{modality}_weights=''"
        )
    if frozen and not weights and part is None:
        raise RunError(
            f'config.model.{modality}_frozen is True, but there are no weights to keep; '
            f'give config.model.{modality}_weights, the name or the file of published weights'
        )


def _check_same(config, modality, part, known) -> None:
    """Raises RunError where the features in the data were not extracted by the run's own trunk."""
    sha256 = next((one['sha256'] for one in known if one['modality'] == modality), None)
    if sha256 != part.sha256:
        own = f'others ({sha256[:12]})' if sha256 else 'none'
        raise RunError(
            f'{config.data.dir} holds features that {part.trunk} made with the weights {part.weights!r} (SHA-256 '
            f'{part.sha256[:12]}), but of published weights the run has {own}; '
            'extract the features again with those of the run'
        )


def _check_extracted(config, modality, part) -> None:
    expected = {f'model.{modality}': part.trunk, f'model.{modality}_frozen': True}
    if modality == 'visual':
        # Frames of a video file must be read and resized as they were for the extraction.
        expected |= {'model.frame_size': part.frame_size, 'data.frame_size': part.frame_size, 'data.fit': part.fit}
    for name, value in expected.items():
        section, field = name.split('.')
        if config[section][field] != value:
            raise RunError(
                f'config.{name} is {config[section][field]!r}, but {config.data.dir} holds features that the frozen '
                f'trunk {part.trunk} made with {value!r}; give --config.{name}={value}, '
                'or extract other features with data_prep.extract'
            )


def _check_media(config, modality, trunk, spec) -> None:
    if modality == 'audio' and trunk.mel not in (None, spec.mel):
        raise RunError(
            f'config.model.audio is {config.model.audio!r}, which reads log-mel of the front end {trunk.mel!r}, '
            f'but {config.data.dir} holds {spec.mel!r}; prepare the data again with --mel={trunk.mel}'
        )
    if modality == 'visual' and config.model.frame_size % trunk.multiple:
        raise RunError(
            f'config.model.frame_size is {config.model.frame_size}; expected a multiple of {trunk.multiple} pixels '
            f'for config.model.visual {config.model.visual!r}'
        )


def load(
    config: ml_collections.ConfigDict, spec: records.Spec, state: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns a state at step 0 with the published weights of its trunks, and one entry per trunk on their origin.

    The weights are those of cfg.model.visual_weights and audio_weights; where such a field is empty and the data hold
    features, they are the weights that extracted the features. The entries hold JSON types. Raises RunError.
    """
    origins = []
    for modality, part in zip(MODALITIES, parts_of(spec)):
        weights = config.model[f'{modality}_weights'] or (part.weights if part else '')
        held = _leaves(state['params'], modality) | _leaves(state['rest'], modality)
        if not weights or not held:
            # Some compared models have only one of the two trunks.
            continue
        try:
            filled, origin = find.load(modality, config.model[modality], weights, traverse_util.unflatten_dict(held))
        except WeightsError as error:
            hint = f'; {config.data.dir} was made with them: give the file as config.model.{modality}_weights'
            raise RunError(f'{error}{"" if config.model[f"{modality}_weights"] else hint}') from None
        if part and origin.sha256 != part.sha256:
            raise RunError(
                f'the weights {weights!r} have the SHA-256 {origin.sha256[:12]}, but the features in {config.data.dir} '
                f'were made with {part.sha256[:12]} ({part.weights}); '
                f'give those as config.model.{modality}_weights, or extract again'
            )
        filled = traverse_util.flatten_dict(filled)
        state = state | {group: _replaced(state[group], modality, filled) for group in ('params', 'rest')}
        origins.append({'modality': modality, **origin.to_json()})
    return state, origins


def _leaves(tree: Any, modality: str) -> dict[tuple, Any]:
    """Returns the arrays of a trunk by their path in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(key.key for key in path[1:]): x for path, x in leaves if path[0].key == modality}


def _replaced(tree: Any, modality: str, filled: dict[tuple, Any]) -> Any:
    """Returns the tree with the arrays of one trunk replaced."""

    def one(path, x):
        return filled[tuple(key.key for key in path[1:])] if path[0].key == modality else x

    return jax.tree_util.tree_map_with_path(one, tree)

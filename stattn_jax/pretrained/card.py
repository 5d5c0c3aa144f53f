"""Writes the model card of a shared model, README.md, from the record in its config.json.

The card states the measured numbers beside their chance levels, the checks for shortcuts, limits, licence and origin.
The YAML above the text is the metadata that the Hugging Face hub reads.
"""

import json
from typing import Any

from stattn_jax import score

_SHORTCUT = 'shortcut/'
# The hub's name of a licence that is not on its list, and of one that was not stated.
_UNKNOWN = 'unknown'


def render(name: str, record: dict[str, Any]) -> str:
    """Returns the card as Markdown; `record` is the content of config.json."""
    parts = [
        _metadata(record),
        f'# {_text(name)}',
        _summary(record),
        '## Use\n\n'
        '```python\nimport stattn_jax\n\n'
        f"e = stattn_jax.from_pretrained('{_text(name)}').explain('clip.mp4')\n"
        "print(e.sentence(), e.top(3))\ne.save_html('clip.html')\n```",
        f'## Classes\n\n{", ".join(map(_text, record["classes"]))}',
        f'## Data\n\n{_data(record)}',
        f'## Measured\n\n{_numbers(record, shortcuts=False)}',
        f'## Checks for shortcuts\n\n{_numbers(record, shortcuts=True)}',
        f'## Limits\n\n{_limits(record)}',
        f'## Licence of the weights\n\n{_licence(record)}',
        f'## Origin\n\n{_origin(record)}',
    ]
    return '\n\n'.join(parts) + '\n'


def _metadata(record) -> str:
    licence = record['weights']['licence'] or _UNKNOWN
    lines = [
        'library_name: stattn_jax',
        'pipeline_tag: video-classification',
        # A string of JSON is one of YAML, whatever it holds.
        f'license: {json.dumps(_text(licence).lower())}',
        'tags: [audio-visual, explainability, attention, jax]',
    ]
    return '\n'.join(['---', *lines, '---'])


def _summary(record) -> str:
    clips, config = record['input'], record['architecture']
    kind = 'each with an independent probability' if record['multi_label'] else 'whose probabilities sum to 1'
    seconds = clips['segments'] * clips['segment_seconds']
    dtype = record['weights'].get('dtype', 'float32')
    return (
        f'A space-time attention network (stattn_jax) that classifies {seconds:g} seconds of video with sound into '
        f'{len(record["classes"])} classes, {kind}, and shows where in the frame and when in the clip the evidence '
        f'lies: each logit is exactly a reference plus the contributions of cells and segments. It has '
        f'{record["weights"]["numbers"]:,} parameters and statistics ({dtype}), the visual trunk `{config["visual"]}` '
        f'and the audio trunk `{config["audio"]}`. It reads {clips["segments"]} frames of {config["frame_size"]} '
        f'pixels and log-mel audio (`{clips["mel"]}`).'
    )


def _data(record) -> str:
    data = record['data']
    text = f'Data set `{_text(data.get("name", "?"))}`, fingerprint (SHA-256) `{data["fingerprint"]}`.'
    clips, wanted = data.get('clips', {}), data.get('wanted', {})
    counts = [
        f'{split}: {count:,}' + (f' of {wanted[split]:,} listed' if wanted.get(split, count) != count else '')
        for split, count in clips.items()
    ]
    text += f' Clips: {", ".join(counts)}.' if counts else ''
    licence = [f'Licences of the recordings: {_text(data["licence"])}'] if data.get('licence') else []
    return '\n\n'.join([text, *licence, *map(_text, record['notes'])])


def _numbers(record, *, shortcuts: bool) -> str:
    """Returns a table of rates for each evaluated split, beside their chance levels."""
    tables = []
    for split, numbers in record['evaluation'].items():
        rows = [
            (name, numbers[key], numbers.get(chance))
            for name, key, chance in score.HEADLINES
            if numbers.get(key) is not None and key.startswith(_SHORTCUT) == shortcuts
        ]
        if rows:
            count = numbers.get('shortcut/n' if shortcuts else 'classification/n')
            lines = [f'| split `{_text(split)}`, {count} clips | measured | chance |', '|---|---|---|']
            lines += [f'| {name} | {rate:.1%} | {"" if low is None else f"{low:.1%}"} |' for name, rate, low in rows]
            tables.append('\n'.join(lines))
    missing = 'No check was made.' if shortcuts else 'No evaluation of this checkpoint was found: nothing is known.'
    if shortcuts and tables:
        tables.append(
            'Mismatched audio is the audio of another clip: visual evidence that decides for the class of that audio '
            'follows the audio rather than the frames. With black frames, the accuracy from audio alone shows how much '
            'of the task needs no frames.'
        )
    return '\n\n'.join(tables) or missing


def _limits(record) -> str:
    clips = record['input']
    seconds = clips['segments'] * clips['segment_seconds']
    always = (
        'A clip in which none of the classes occurs gets low probabilities at best.'
        if record['multi_label']
        else 'It names one of its classes for every clip, also where none of them occurs.'
    )
    sentences = [
        f'It knows the {len(record["classes"])} classes above and nothing else. {always}',
        'The numbers above are of the data set above; for other recordings nothing was measured.',
        f'It reads {seconds:g} seconds at a time, one frame for each {clips["segment_seconds"]:g} s.',
        'A contribution is what a cell or a segment adds to the logit in this network. It is not proof that the '
        'object is there, and not the change that its removal would cause.',
    ]
    extra = [_text(record['limits'])] if record['limits'] else []
    return '\n'.join(f'- {sentence}' for sentence in [*sentences, *extra])


def _licence(record) -> str:
    licence = record['weights']['licence']
    lines = [_text(licence) if licence else 'No licence was stated: ask whoever gave you this folder.']
    for trunk in record['trunks']:
        lines.append(
            f'The {trunk["modality"]} trunk `{_text(trunk["trunk"])}` began with the published weights '
            f'`{_text(trunk["weights"])}` (SHA-256 `{trunk["sha256"]}`), licence: {_text(trunk["licence"])}.'
        )
    return '\n\n'.join(lines)


def _origin(record) -> str:
    training = record['training']
    versions = ', '.join(f'{name} {version}' for name, version in training.get('versions', {}).items())
    rows: dict[str, Any] = {
        'saved by': f'stattn_jax {record["stattn_jax"]}',
        'step': training['step'],
        'seed': training.get('seed'),
        'commit': training.get('git_commit'),
        'config hash': training['config_hash'],
        'trained on': (training.get('devices') or {}).get('device_kind'),
        'trained with': versions or None,
        'SHA-256 of model.safetensors': f'`{record["weights"]["sha256"]}`',
    }
    lines = [f'| {name} | {value} |' for name, value in rows.items() if value is not None]
    return '\n'.join(['| | |', '|---|---|', *lines])


def _text(value: Any) -> str:
    """Returns a text on one line in which nothing is markup of a table or of HTML."""
    text = ' '.join(str(value).split())
    for letter, escaped in (('&', '&amp;'), ('<', '&lt;'), ('|', '&#124;'), ('`', "'")):
        text = text.replace(letter, escaped)
    return text

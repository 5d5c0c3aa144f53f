"""Tests the model card: numbers beside chance, checks for shortcuts, limits, licence, and names that are no markup."""

import copy
import json

import pytest
import shared

from stattn_jax.pretrained import card, lookup


@pytest.fixture(scope='module')
def demo():
    return json.loads((lookup.SHIPPED['demo'] / 'config.json').read_text())


def metadata(text):
    lines = text.split('---')[1].strip().splitlines()
    return dict(line.split(': ', 1) for line in lines)


@pytest.mark.parametrize('name', lookup.SHIPPED)
def test_shipped_card_is_the_one_of_its_record(name):
    record = json.loads((lookup.SHIPPED[name] / 'config.json').read_text())
    assert (lookup.SHIPPED[name] / 'README.md').read_text() == card.render(name, record)


def test_licences_of_recordings_and_trunk_stand_in_the_card_and_in_the_notice():
    folder = lookup.SHIPPED['av_digits']
    text, notice = (folder / 'README.md').read_text(), (folder / 'NOTICE').read_text()
    data, weights = text.split('## Measured')[0], text.split('## Licence of the weights')[1]
    assert 'free-spoken-digit-dataset, CC BY-SA 4.0' in data and 'C50P49, CC BY 4.0' in data
    assert metadata(text)['license'] == '"cc-by-sa-4.0"'
    assert weights.startswith('\n\ncc-by-sa-4.0\n') and 'licence: Apache-2.0.' in weights
    assert all(name in notice for name in ('CC BY-SA 4.0', 'CC BY 4.0', 'Apache-2.0', 'EfficientNet-Lite0'))


def test_numbers_stand_beside_chance_and_shortcuts_by_themselves(demo):
    text = card.render('demo', demo)
    measured, shortcuts = text.split('## Checks for shortcuts')
    numbers = demo['evaluation']['test']
    top1, chance = numbers['classification/top1'], numbers['classification/top1_majority']
    assert (
        f'| accuracy | {top1:.1%} | {chance:.1%} |' in measured and f'{numbers["classification/n"]} clips' in measured
    )
    assert f'accuracy from audio alone | {numbers["shortcut/audio_only"]:.1%} |' in shortcuts
    assert 'mismatched audio' not in measured
    assert f'train: {demo["data"]["clips"]["train"]:,}' in text and demo['weights']['sha256'] in text


def test_card_states_that_numbers_and_licence_are_missing(tmp_path):
    record = json.loads((shared.make_folder(tmp_path) / 'config.json').read_text())
    record |= {'evaluation': {}, 'weights': record['weights'] | {'licence': None}, 'notes': ['Something is missing.']}
    text = card.render('clips', record)
    assert 'nothing is known' in text and 'No check was made.' in text
    assert 'No licence was stated' in text and metadata(text)['license'] == '"unknown"'
    assert 'Something is missing.' in text.split('## Measured')[0]


def test_licences_of_published_trunks_are_named(demo):
    trunk = {'modality': 'visual', 'trunk': 'resnet18', 'weights': 'r18.pth', 'sha256': 'ab' * 32, 'licence': 'BSD-3'}
    text = card.render('demo', demo | {'trunks': [trunk]})
    assert 'began with the published weights' in text and 'licence: BSD-3.' in text and 'ab' * 32 in text


def test_names_are_text_and_not_markup(demo):
    record = copy.deepcopy(demo)
    record['classes'][0] = 'a|b <img src=x>\n# no heading `'
    record['weights']['licence'] = 'mine: "x"\ntags: []'
    text = card.render('<b>', record)
    assert '<img' not in text and '<b>' not in text and '\n# no heading' not in text
    assert json.loads(metadata(text)['license']) == 'mine: "x" tags: []'

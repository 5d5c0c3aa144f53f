"""benchmarks.layers and benchmarks.card: every form is timed, and the parts run commands that exist."""

import importlib.util
import json

import pytest

from benchmarks import card, layers
from stattn_jax.models.layers import FORMS


def test_every_form_is_timed_beside_the_plain_one(tmp_path, capsys):
    out = tmp_path / 'layers.json'
    assert layers.main(['--frames=1', '--rounds=1', '--calls=1', '--layers=batch norm 14,dense', f'--out={out}']) == 0
    rows = json.loads(out.read_text())['rows']
    assert [(row['layer'], row['part']) for row in rows] == [
        (name, part) for name in ('batch norm 14', 'dense') for part in layers.PARTS
    ]
    for row in rows:
        for form in FORMS:
            assert row[form]['median'] > 0
        assert row['cpu']['ratio'] == pytest.approx(row['cpu']['median'] / row['plain']['median'])
    assert capsys.readouterr().out.count('\n') == 1 + len(rows)


def test_the_parts_of_a_measurement_are_commands(tmp_path):
    commands = card.parts(64, tmp_path)
    chains = [command for chain in card.warming(64) for command in chain]
    for command in [*commands.values(), *chains]:
        assert importlib.util.find_spec(command[0]) is not None
    assert commands['peer_resnet50'][-1] == '--batch=32'


def test_an_unknown_part_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        card.main([f'--out={tmp_path}', '--parts=versions,nothing'])
    assert 'nothing; expected some of versions, peer_resnet18' in capsys.readouterr().err

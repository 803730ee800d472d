"""The shape of the project: everything has its test, its reference and its catalogue, under the same word."""

from pathlib import Path

import pytest

import checkpoints
import zoo

ROOT = Path(__file__).parents[1]
OPERATORS = [
    path
    for path in sorted((ROOT / 'ops').glob('*/*'))
    if path.name[0] != '_' and (path.suffix == '.py' or (path / '__init__.py').exists())
]
FAMILIES = sorted(path.stem for path in (ROOT / 'zoo' / 'families').glob('[a-z]*.py'))
OUR_OWN = {'mixer'}
"""Families that no paper defines."""
UNRELEASED = {'maxvit_stl'}
"""Families of others without released weights."""
REFERENCES = {
    'agent_cswin': 'agent',
    'agent_deit': 'agent',
    'agent_pvt': 'agent',
    'agent_swin': 'agent',
    'biformer_stl': 'biformer',
    'dinat_s': 'nat',
    'focalnet_isotropic': 'focalnet',
    'gated_mobilenetv2': 'channel',
    'gated_resnet': 'channel',
    'maxvit_stl': 'biformer',
    'nat_isotropic': 'nat',
}
"""Family -> folder of `tests/golden`, where it is not of its own name: families of one repository share one."""


@pytest.mark.parametrize('path', OPERATORS, ids=lambda path: path.stem)
def test_every_operator_has_its_test(path):
    assert (ROOT / 'tests' / 'ops' / path.parent.name / f'test_{path.stem}.py').is_file()


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_has_models(family):
    assert any(zoo.family_of(name) == family for name in zoo.list_models())


@pytest.mark.parametrize('family', sorted({*FAMILIES} - OUR_OWN))
def test_every_family_of_others_has_references_and_a_catalogue(family):
    assert family in UNRELEASED or checkpoints.catalogue(family)
    assert any((ROOT / 'tests' / 'golden' / REFERENCES.get(family, family)).glob('*.npz'))


def test_source_files_stay_short():
    sources = [path for folder in ('ops', 'zoo', 'checkpoints', 'tools') for path in (ROOT / folder).rglob('*.py')]
    assert len(sources) > 30
    assert not {path.name: n for path in sources if (n := len(path.read_text().splitlines())) > 500}


def test_the_top_level_is_the_agreed_one():
    made = {'outputs', 'work_dirs', 'build', 'dist', '__pycache__'}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != '.'}
    folders = {name for name in folders - made if not name.endswith('.egg-info')}
    assert folders == {'zoo', 'ops', 'configs', 'tools', 'tests', 'checkpoints', 'docs'}

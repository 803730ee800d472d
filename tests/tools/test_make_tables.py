import csv
import re

import pytest

import checkpoints
import ops
import zoo
from ops.registry import OPS
from tools import _console, make_tables
from tools.make_tables import ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one page, with costs that need no counting."""
    monkeypatch.setattr(make_tables, 'ROOT', tmp_path)
    monkeypatch.setattr('zoo.profile.RECORD', tmp_path / 'costs.csv')
    monkeypatch.setattr(make_tables, 'costs', lambda: 'model,input_size,parameters,macs\n')
    monkeypatch.setitem(make_tables.TABLES, 'models', lambda: '| a |\n| --- |\n')
    page = tmp_path / 'README.md'
    page.write_text('before\n<!-- table:models -->\nold\n<!-- /table:models -->\nafter\n')
    return page


def test_writes_between_the_markers_and_then_nothing(project, capsys):
    assert make_tables.main(['--check']) == _console.FAILED
    assert 'README.md is not current' in capsys.readouterr().out
    assert 'old' in project.read_text()
    assert make_tables.main([]) == 0
    assert project.read_text() == 'before\n<!-- table:models -->\n| a |\n| --- |\n<!-- /table:models -->\nafter\n'
    capsys.readouterr()
    assert make_tables.main(['--check']) == 0
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('<!-- table:modles -->\n<!-- /table:modles -->', "no table 'modles'"),
        ('<!-- table:models -->\n', 'is not closed'),
    ],
)
def test_wrong_marker_is_an_error(project, capsys, text, message):
    project.write_text(text)
    assert make_tables.main([]) == _console.REFUSED
    assert message in capsys.readouterr().err
    assert project.read_text() == text


def test_bars_in_cells_are_escaped():
    assert make_tables.markdown(('a', 'b'), [('x|y', None)], right=(1,)) == '| a | b |\n| --- | ---: |\n| x\\|y |  |\n'


def test_every_config_of_a_detector_or_segmentor_is_in_its_table():
    table = make_tables.TABLES['dense']()
    paths = [path for task in ('detection', 'segmentation') for path in (ROOT / 'configs' / task).glob('*/*.py')]
    assert all(f'(../{path.relative_to(ROOT).as_posix()})' in table for path in paths)
    row = (
        r'`mask_rcnn_nat_mini_3x`\]\(.*\) \| `nat_mini` \| Mask R-CNN \| 46\.5 \| 41\.7 \| .*/nat_mini_maskrcnn\.pth\)'
    )
    assert re.search(row, table)


def test_every_model_weight_and_op_is_in_its_table():
    models, weights, operators = (make_tables.TABLES[name]() for name in ('models', 'checkpoints', 'ops'))
    families = make_tables.TABLES['families']()
    assert all(f'| `{zoo.family_of(name)}` |' in families for name in zoo.list_models())
    assert re.search(r'`pvt` .* 13\.2 - .*`sra`.*2102\.12122', families)
    assert all(f'| `{name}` |' in models for name in zoo.list_models())
    for family in checkpoints.families():
        for tags in checkpoints.catalogue(family).values():
            assert all(f'| `{entry.name}` |' in weights for entry in tags.values())
    assert all(f'| `{name}` |' in operators for name in OPS)
    assert all(f'[`{name}`](' in operators + make_tables.TABLES['parts']() for name in ops.PLACES)
    assert re.search(r'`na` .* 16,978 .*`kernel_size=7`.*`nat`', operators)
    assert '| (B, H, W, C) -> (B, H, W, C) |' in operators
    assert '[2204.07143](https://arxiv.org/abs/2204.07143)' in operators


def test_measured_results_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(make_tables, 'ROOT', tmp_path)
    (tmp_path / 'checkpoints').mkdir()
    with (make_tables.Path(checkpoints.__file__).parent / 'results.csv').open() as file:
        columns = next(csv.reader(file))
    row = dict.fromkeys(columns, 'x') | {'model': 'nat_pico', 'value': '90.1'}
    (tmp_path / 'checkpoints' / 'results.csv').write_text(f'{",".join(columns)}\n{",".join(row.values())}\n')
    assert '| nat_pico | x | x | x | 90.1 |' in make_tables.results_table()

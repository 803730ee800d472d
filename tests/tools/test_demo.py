import importlib.util
import json
import re

import numpy as np
import pytest
from PIL import Image

from tools import demo

for package in ('skimage', 'sklearn', 'matplotlib', 'mmengine'):
    pytest.importorskip(package, reason=f'the demo needs {package} (the extra [demo])')


@pytest.fixture
def steps(monkeypatch):
    """The names of the steps that ran, each replaced by one that does nothing."""
    ran = []
    for name in ('classify', 'learn', 'hold'):
        monkeypatch.setattr(demo, name, lambda args, name=name: ran.append(name) or 0)
    return ran


def test_the_whole_demo_in_short(tmp_path, capfd):
    assert demo.main(['--quick', '--out', str(tmp_path)]) == 0
    shown = capfd.readouterr().out
    for name in demo.PHOTOGRAPHS:
        picture = np.asarray(Image.open(tmp_path / f'{name}_prediction.png').convert('RGB'))
        assert picture.shape == (600, 1200, 3)
        assert picture.std() > 20
    assert re.search(r'^\s*1\s+cat\s', shown, re.MULTILINE)
    assert len((tmp_path / 'digits' / 'log.jsonl').read_text().splitlines()) == 1
    assert np.asarray(Image.open(tmp_path / 'digits' / 'curve.png')).std() > 10
    for line in (
        '== 1 of 3',
        '== 2 of 3',
        '== 3 of 3',
        '$ attnzoo list',
        'dinat_large',
        f'everything is in {tmp_path}',
    ):
        assert line in shown


def test_the_steps_run_in_order(steps, tmp_path, capsys):
    assert demo.main(['--out', str(tmp_path)]) == 0
    assert steps == ['classify', 'learn', 'hold']
    assert capsys.readouterr().out.count('\n== ') == 3


def test_a_failing_step_is_the_last(steps, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, 'learn', lambda args: 2)
    assert demo.main(['--out', str(tmp_path)]) == 2
    assert steps == ['classify']


def test_weights_that_are_absent_fail_clearly(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, 'MODEL', 'nat_pico.nowhere')
    assert demo.main(['--out', str(tmp_path)]) == 2
    assert 'nat_pico has no weights' in capsys.readouterr().err


def test_a_missing_package_is_named_before_anything_is_done(steps, monkeypatch, tmp_path, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'skimage' else find(name))
    assert demo.main(['--out', str(tmp_path / 'out')]) == 2
    assert capsys.readouterr().err == "attnzoo: error: the demo needs skimage: pip install 'attnzoo[demo]'\n"
    assert not steps
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('top1', 'status'), [(95.1, 0), (94.9, 1)])
def test_digits_must_be_learned(monkeypatch, tmp_path, capsys, top1, status):
    def train(arguments):
        folder = tmp_path / 'digits'
        folder.mkdir()
        (folder / 'log.jsonl').write_text(json.dumps({'epoch': 1, 'loss': 1.0, 'top1': top1}) + '\n')
        return 0

    monkeypatch.setattr(demo.train, 'main', train)
    args = demo.build_parser().parse_args(['--out', str(tmp_path)])
    assert demo.learn(args) == status
    assert ('more than 95 % were expected' in capsys.readouterr().err) == bool(status)

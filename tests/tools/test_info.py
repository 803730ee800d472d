import json

import pytest
import timm
import torch

from tools import _console, info


def described(capsys, *argv):
    assert info.main([*argv, '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_stages_sum_to_the_whole(capsys):
    found = described(capsys, 'nat_mini')
    assert [part['name'] for part in found['parts']] == ['stem', *(f'stages.{i}' for i in range(4)), 'norm', 'head']
    assert sum(part['parameters'] for part in found['parts']) == found['parameters'] == 19984174
    assert sum(part['macs'] for part in found['parts']) == found['macs']
    assert [feature['num_chs'] for feature in found['features']] == [64, 128, 256, 512]
    assert found['weights']['shi_in1k']['license'] == 'MIT'


def test_text_names_blocks_and_source(capsys):
    assert info.main(['dinat_mini']) == 0
    shown = capsys.readouterr().out
    assert '6 x PreNormBlock (NeighborhoodAttention2D)' in shown
    assert 'https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_mini_in1k_224.pth' in shown
    assert 'SHI-Labs/Neighborhood-Attention-Transformer@' in shown
    assert 'shi-labs/dinat-mini-in1k-224' in shown


def test_measured_results_are_shown(capsys, monkeypatch):
    columns = ('dataset', 'split', 'metric', 'value', 'resolution', 'weights', 'date', 'device')
    row = {column: f'its {column}' for column in columns}
    monkeypatch.setattr(info, 'measured', lambda name: [{'model': name, **row}])
    assert info.main(['nat_pico']) == 0
    assert (
        'measured here   its dataset its split its metric its value (its resolution pixels' in capsys.readouterr().out
    )
    assert described(capsys, 'nat_pico')['measured'] == [{'model': 'nat_pico', **row}]


def test_results_are_those_of_the_model():
    assert all(row['model'].startswith('nat_pico') for row in info.measured('nat_pico.any'))
    assert not info.measured('nat')


def test_models_of_timm_at_another_size(capsys):
    small, large = described(capsys, 'resnet18'), described(capsys, 'resnet18', '--img-size', '448')
    assert large['input_size'] == [3, 448, 448]
    assert large['macs'] == pytest.approx(4 * small['macs'], rel=1e-3)
    assert described(capsys, 'vit_tiny_patch16_224', '--img-size', '96', '64')['input_size'] == [3, 96, 64]


def test_size_a_model_cannot_take(capsys):
    assert info.main(['maxvit_tiny_tf_224', '--img-size', '100']) == _console.REFUSED
    assert 'cannot take an image of (3, 100, 100)' in capsys.readouterr().err


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Weights of nat_pico: whole, and with a key missing, one too many and one of another shape."""
    folder = tmp_path_factory.mktemp('info')
    state_dict = timm.create_model('nat_pico').state_dict()
    torch.save({'model': state_dict}, folder / 'whole.pth')
    del state_dict['norm.weight']
    state_dict |= {'extra': torch.zeros(1), 'norm.bias': torch.zeros(1)}
    torch.save({'state_dict': state_dict}, folder / 'damaged.pth')
    return folder


def test_whole_checkpoint_is_covered(capsys, weights):
    assert info.main(['nat_pico', '--weights', str(weights / 'whole.pth')]) == 0
    count = len(timm.create_model('nat_pico').state_dict())
    assert f'{count} of {count} expected keys match' in capsys.readouterr().out


def test_damaged_checkpoint_is_reported_and_fails(capsys, weights):
    assert info.main(['nat_pico', '--json', '--weights', str(weights / 'damaged.pth')]) == _console.FAILED
    covered = json.loads(capsys.readouterr().out)['coverage']
    assert covered['missing'] == ['norm.weight']
    assert covered['unexpected'] == ['extra']
    assert covered['misshapen'][0][0] == 'norm.bias'
    assert not covered['complete']


def test_missing_checkpoint_is_one_line(capsys, weights):
    assert info.main(['nat_pico', '--weights', str(weights / 'none.pth')]) == _console.REFUSED
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert 'none.pth' in error

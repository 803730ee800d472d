import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open

import checkpoints
import zoo
from tools import _console, convert

GOLDEN = Path(__file__).parents[1] / 'golden' / 'nat'


@pytest.fixture(scope='module')
def authors(tmp_path_factory):
    """Random weights under the keys of the authors' vitrpb_small, wrapped as they would be, and nat_mini's."""
    folder = tmp_path_factory.mktemp('authors')
    generator = torch.Generator().manual_seed(0)
    for name in ('vitrpb_small', 'nat_mini'):
        keys = json.loads((GOLDEN / f'{name}.json').read_text())['keys']
        state_dict = {key: torch.randn(shape, generator=generator) for key, shape in keys.items()}
        torch.save({'model': state_dict, 'epoch': 1}, folder / f'{name}.pth')
    return folder


def test_writes_weights_and_report(authors, tmp_path, capsys):
    source, output = authors / 'vitrpb_small.pth', tmp_path / 'out' / 'vitrpb_small.safetensors'
    assert convert.main([str(source), str(output), '--report', str(tmp_path / 'report.json')]) == 0
    shown = capsys.readouterr().out
    assert f'sha256 = "{checkpoints.sha256_of(output)}"' in shown
    assert f'bytes = {output.stat().st_size}' in shown
    with safe_open(output, 'pt') as file:
        metadata = file.metadata()
    assert metadata['model'] == 'vitrpb_small'
    assert metadata['source'] == 'vitrpb_small.pth'
    assert metadata['source_sha256'] == checkpoints.sha256_of(source)

    report = json.loads((tmp_path / 'report.json').read_text())
    given, written = checkpoints.read_state_dict(source), checkpoints.read_state_dict(output)
    assert [entry['source'] for entry in report['entries']] == list(given)
    targets = {entry['source']: entry['target'] for entry in report['entries']}
    assert sorted(filter(None, targets.values())) == sorted(written)
    assert {key for key, target in targets.items() if target is None} == {
        key for key in given if key.endswith('relative_position_index')
    }
    assert all(torch.equal(given[key], written[target]) for key, target in targets.items() if target)


def test_result_loads_like_the_source(authors, tmp_path):
    assert convert.main([str(authors / 'nat_mini.pth'), str(tmp_path / 'a.safetensors'), '--model', 'nat_mini']) == 0
    first, second = timm.create_model('nat_mini'), timm.create_model('nat_mini')
    assert zoo.load_checkpoint(first, authors / 'nat_mini.pth').complete
    assert zoo.load_checkpoint(second, tmp_path / 'a.safetensors').complete
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    row = '| levels.0.blocks.0.attn.rpb | stages.0.blocks.0.mixer.rpb | [2, 13, 13] | float32 |'
    assert row in (tmp_path / 'a.md').read_text().splitlines()


def test_models_alike_are_not_guessed(authors, tmp_path, capsys):
    assert convert.main([str(authors / 'nat_mini.pth'), str(tmp_path / 'a.safetensors')]) == _console.REFUSED
    assert 'fits nat_mini, dinat_mini alike' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_partial_coverage_is_refused(authors, tmp_path, capsys):
    state_dict = checkpoints.read_state_dict(authors / 'nat_mini.pth')
    del state_dict['norm.weight']
    torch.save(state_dict, tmp_path / 'partial.pth')
    argv = [str(tmp_path / 'partial.pth'), str(tmp_path / 'a.safetensors')]
    assert convert.main([*argv, '--model', 'nat_mini']) == _console.REFUSED
    assert 'norm.weight' in capsys.readouterr().err
    assert convert.main(argv) == _console.REFUSED
    assert 'fits no model of the zoo' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['partial.pth']


def test_other_number_of_classes_and_averaged_weights(tmp_path):
    raw, averaged = (timm.create_model('nat_pico', num_classes=7).state_dict() for _ in range(2))
    torch.save({'state_dict': raw, 'state_dict_ema': averaged}, tmp_path / 'a.pth')
    argv = [str(tmp_path / 'a.pth'), str(tmp_path / 'a.safetensors'), '--model', 'nat_pico', '--force']
    for options, expected in (([], averaged), (['--no-ema'], raw)):
        assert convert.main([*argv, *options]) == 0
        written = checkpoints.read_state_dict(tmp_path / 'a.safetensors')
        assert all(torch.equal(written[key], tensor) for key, tensor in expected.items())
    assert '- num_classes: 7' in (tmp_path / 'a.md').read_text()


def test_linear_layers_may_be_convolutions_of_one_pixel():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Conv2d(2, 4, 1), torch.nn.Linear(1, 3))
    theirs = {'0.weight': torch.randn(2, 3, 1, 1), '1.weight': torch.randn(4, 2), '2.weight': torch.randn(3)}
    renamed = convert.in_our_shape(theirs, model)
    assert [tuple(tensor.shape) for tensor in renamed.values()] == [(2, 3), (4, 2, 1, 1), (3, 1)]
    assert all(torch.equal(renamed[key].flatten(), tensor.flatten()) for key, tensor in theirs.items())
    transposed = {'0.weight': torch.randn(3, 2)}
    assert convert.in_our_shape(transposed, model)['0.weight'] is transposed['0.weight']


@pytest.mark.parametrize('taken', ['a.safetensors', 'a.md'])
def test_existing_file_is_kept(authors, tmp_path, capsys, taken):
    (tmp_path / taken).write_text('mine')
    argv = [str(authors / 'nat_mini.pth'), str(tmp_path / 'a.safetensors'), '--model', 'nat_mini']
    assert convert.main(argv) == _console.REFUSED
    assert '--force' in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ['mine']


@pytest.mark.parametrize(
    ('argv', 'message'), [(['a.pth'], '.safetensors'), (['a.safetensors', '--report', 'a.txt'], '.md')]
)
def test_wrong_suffix(authors, capsys, argv, message):
    assert convert.main([str(authors / 'nat_mini.pth'), *argv]) == _console.REFUSED
    assert f'must end in {message}' in capsys.readouterr().err


def test_source_may_be_a_url(authors, tmp_path):
    url = (authors / 'vitrpb_small.pth').as_uri()
    assert convert.main([url, str(tmp_path / 'a.safetensors'), '--model', 'vitrpb_small']) == 0
    assert f'- source: {url}' in (tmp_path / 'a.md').read_text()


def test_damaged_source_writes_nothing(authors, tmp_path, capsys):
    source = tmp_path / 'cut.pth'
    source.write_bytes((authors / 'nat_mini.pth').read_bytes()[:100_000])
    assert convert.main([str(source), str(tmp_path / 'a.safetensors'), '--model', 'nat_mini']) == _console.REFUSED
    assert 'truncated' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['cut.pth']

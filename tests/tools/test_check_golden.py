"""The checker itself, on references made here from a small model of ours and a toy operator."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from torch import nn

from tools.check_golden import main
from zoo import golden
from zoo.golden import rule

MODEL, SIZE = 'nat_pico', (2, 3, 32, 32)


@pytest.fixture(scope='module')
def references(tmp_path_factory):
    """A folder with one network under keys that only the family's rules can place."""
    torch.manual_seed(0)
    model = timm.create_model(MODEL, num_classes=7).eval()
    keys = {key.replace('head.fc.', 'head.'): list(value.shape) for key, value in model.state_dict().items()}
    state = rule.state_dict(keys, {})
    model.load_state_dict({key.replace('head.', 'head.fc.'): value for key, value in state.items()})
    with torch.no_grad():
        x = rule.images(SIZE)
        numbers = dict(logits=model(x).numpy())
        for i, feature in enumerate(model.forward_intermediates(x, intermediates_only=True)):
            numbers |= sampled(f'feat{i}', feature, i, 256)
    folder = tmp_path_factory.mktemp('made') / 'toy'
    folder.mkdir()
    config = dict(
        model=f'{MODEL}_32x32',
        official=dict(kwargs=dict(num_classes=7)),
        input=SIZE,
        params=sum(p.numel() for p in model.parameters()),
        keys=keys,
        kept_buffers=[],
        scale=1.0,
        f32_noise=1e-6,
        f32_noise_feats=[1e-6] * 3,
    )
    (folder / 'network.json').write_text(json.dumps(config))
    np.savez(folder / 'network.npz', **numbers)
    return folder


@pytest.fixture
def folder(references, tmp_path):
    return shutil.copytree(references, tmp_path / 'toy')


def sampled(name, tensor, seed, count):
    """How a large array is stored."""
    flat = tensor.detach().flatten().numpy()
    positions = rule.stream(seed).randint(0, flat.size, count)
    stored = dict(sample=flat[positions], shape=tensor.shape, mean=flat.mean(), std=flat.std())
    return {f'{name}_{kind}': value for kind, value in stored.items()}


def change_config(folder, **changes):
    path = folder / 'network.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_numbers(folder, **changes):
    with np.load(folder / 'network.npz') as file:
        numbers = dict(file)
    np.savez(folder / 'network.npz', **(numbers | changes))
    return numbers


def check(folder, *options):
    """Exit status and rows."""
    report = folder.parent / 'rows.json'
    status = main([str(folder), '--json', str(report), *options])
    return status, json.loads(report.read_text())


def test_a_network_of_ours_agrees_with_itself(folder, capsys):
    status, (row,) = check(folder)
    assert status == 0
    assert (row['name'], row['kind'], row['status']) == ('toy/network', 'network', 'agrees')
    assert row['parameters'] == json.loads((folder / 'network.json').read_text())['params']
    assert 'toy/network' in capsys.readouterr().out
    assert not list(folder.parent.glob('*.part'))


@pytest.mark.parametrize('quantity', ['logits', 'feat0_sample', 'feat1_mean', 'feat2_std'])
def test_one_wrong_number_is_found(folder, quantity):
    numbers = change_numbers(folder)
    wrong = np.array(numbers[quantity])
    wrong.flat[0] += 1e-3
    change_numbers(folder, **{quantity: wrong})
    status, (row,) = check(folder)
    assert status == 1
    assert row['status'] == 'disagrees'
    assert row['worst'] == quantity.split('_')[0]
    assert row['error'] == pytest.approx(1e-3, rel=0.1)


def test_keys_that_are_not_one_to_one_are_named(folder):
    keys = json.loads((folder / 'network.json').read_text())['keys']
    keys['head.wait'] = keys.pop('head.weight')
    change_config(folder, keys=keys)
    status, (row,) = check(folder)
    assert status == 1
    assert row['worst'] == 'keys'
    assert 'head.wait' in row['note']
    assert 'head.fc.weight' in row['note']


def test_the_number_of_parameters_must_be_the_authors(folder):
    change_config(folder, params=1)
    status, (row,) = check(folder)
    assert (status, row['status'], row['worst']) == (1, 'disagrees', 'parameters')


def test_keys_alone_are_checked_without_numbers(folder):
    (folder / 'network.npz').unlink()
    change_config(folder, manifest_only=True)
    status, (row,) = check(folder)
    assert (status, row['kind'], row['status']) == (0, 'keys', 'agrees')


def test_a_dense_backbone_agrees_through_its_output_norms(folder):
    config = json.loads((folder / 'network.json').read_text())
    keys = {key: shape for key, shape in config['keys'].items() if not key.startswith(('norm.', 'head.'))}
    model = timm.create_model(MODEL, num_classes=0).eval()
    model.load_state_dict(rule.state_dict(keys, {}), strict=False)
    numbers = {}
    with torch.no_grad():
        for i, feature in enumerate(model.forward_intermediates(rule.images(SIZE), intermediates_only=True)):
            norm = {f'norm{i}.{part}': [feature.shape[1]] for part in ('weight', 'bias')}
            weight, bias = rule.state_dict(norm, {}).values()
            normed = nn.functional.layer_norm(feature.movedim(1, -1), weight.shape, weight, bias).movedim(-1, 1)
            numbers |= sampled(f'feat{i}', normed, i, 256)
            keys |= norm
    np.savez(folder / 'network.npz', **numbers)
    change_config(folder, keys=keys, params=sum(int(np.prod(shape)) for shape in keys.values()))
    status, (row,) = check(folder)
    assert (status, row['kind'], row['status']) == (0, 'dense', 'agrees')
    change_numbers(folder, feat2_mean=0.5)
    assert check(folder)[0] == 1


def test_a_network_that_we_lack_is_unmapped(folder):
    change_config(folder, model='resnet18')
    status, (row,) = check(folder)
    assert (status, row['status']) == (1, 'unmapped')
    assert 'resnet18' in row['note']


class Toy(nn.Module):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim, bias=True):
        super().__init__()
        self.mix = nn.Linear(dim, dim, bias)
        self.register_buffer('index', torch.arange(3))

    def forward(self, x):
        return x + self.mix(x).tanh()


@pytest.fixture
def toy_operator(monkeypatch):
    """An operator that the authors call on (B, H * W, C), with keys of their own."""
    operator = golden.ModuleOperator(
        build=lambda arguments: Toy(arguments['dim']),
        key_rules=((r'^proj\.', 'mix.'),),
        call=lambda module, x, arguments: module(x.unflatten(1, (-1, arguments['W']))).flatten(1, 2),
        post_fill=({'key_endswith': ['bias'], 'add': 1},),
    )
    monkeypatch.setitem(golden.OPERATORS, 'toy*', operator)


def write_operator(folder, own_json):
    """One toy operator, sampled and with a json of its own or whole and in an index; its npz file and what it holds."""
    empty(folder)
    module = Toy(8)
    module.mix.weight.data = torch.from_numpy(rule.weight('proj.weight', (8, 8), 2.0))
    module.mix.bias.data = 1 + torch.from_numpy(rule.weight('proj.bias', (8,)))
    shape = (2, 15 * 13, 8)
    x = torch.from_numpy(rule.normal(3, shape)).requires_grad_()
    y = module(x)
    y.backward(torch.from_numpy(rule.normal(4, shape)))
    grads = {f'proj.{name}': p.grad for name, p in module.mix.named_parameters()}
    keys = {'proj.weight': [8, 8], 'proj.bias': [8], 'index': [3]}
    arguments = dict(dim=8, W=13)
    common = dict(keys=keys, f32_noise=1e-6, kept_buffers=['index'], scale=2.0)
    arrays = dict(x_seed=3, x_shape=shape)
    if own_json:
        sums = {key: [float(g.sum()), float(g.norm())] for key, g in grads.items()}
        content = dict(common, op='toy', official=dict(kwargs=arguments), params=72, param_grad_sum_norm=sums)
        (folder / 'toy.json').write_text(json.dumps(content))
        numbers = folder / 'toy.npz'
        arrays |= dict(g_seed=4, g_shape=shape, **sampled('y', y, 'y', 1024), **sampled('dx', x.grad, 'dx', 1024))
    else:
        cases = dict(toy_a=dict(common, cfg=arguments), toy_kept_elsewhere=dict(common, cfg={}))
        (folder / 'toy_index.json').write_text(json.dumps(dict(cases=cases)))
        numbers = folder / 'toy_a.npz'
        arrays |= dict(out=y.detach().numpy(), dx=x.grad.numpy(), grad_out_seed=4, grad_out_shape=shape)
        arrays |= {f'grad_norm.{key}': float(g.norm()) for key, g in grads.items()}
    np.savez(numbers, **arrays)
    return numbers, arrays


@pytest.mark.parametrize('own_json', [True, False])
def test_an_operator_agrees_in_both_formats(folder, toy_operator, own_json):
    write_operator(folder, own_json)
    status, rows = check(folder)
    assert (status, [row['status'] for row in rows]) == (0, ['agrees']), rows


@pytest.mark.parametrize(
    ('own_json', 'quantity', 'worst'),
    [
        (True, 'y_sample', 'y'),
        (True, 'dx_sample', 'dx'),
        (False, 'out', 'out'),
        (False, 'grad_norm.proj.weight', 'gradient of proj.weight'),
    ],
)
def test_a_wrong_number_of_an_operator_is_found(folder, toy_operator, own_json, quantity, worst):
    numbers, arrays = write_operator(folder, own_json)
    wrong = np.array(arrays[quantity])
    wrong.flat[0] *= 1.01
    np.savez(numbers, **(arrays | {quantity: wrong}))
    status, (row,) = check(folder)
    assert (status, row['status'], row['worst']) == (1, 'disagrees', worst)


def test_a_wrong_sum_of_a_gradient_is_found(folder, toy_operator):
    write_operator(folder, own_json=True)
    config = json.loads((folder / 'toy.json').read_text())
    config['param_grad_sum_norm']['proj.bias'][0] *= 1.05
    (folder / 'toy.json').write_text(json.dumps(config))
    status, (row,) = check(folder)
    assert (status, row['worst']) == (1, 'gradient of proj.bias')


def test_an_operator_that_we_lack_is_unmapped(folder):
    write_operator(folder, own_json=True)
    status, (row,) = check(folder)
    assert (status, row['status']) == (1, 'unmapped')
    assert 'OPERATORS' in row['note']


def test_numbers_that_nothing_describes_are_unmapped(folder):
    shutil.copy(folder / 'network.npz', folder / 'orphan.npz')
    status, rows = check(folder)
    assert status == 1
    assert {row['name']: row['status'] for row in rows} == {'toy/network': 'agrees', 'toy/orphan': 'unmapped'}


def test_an_operator_that_breaks_does_not_stop_the_others(folder, toy_operator, monkeypatch):
    network = [(folder / f'network.{end}').read_bytes() for end in ('json', 'npz')]
    write_operator(folder, own_json=True)
    for end, content in zip(('json', 'npz'), network):
        (folder / f'network.{end}').write_bytes(content)
    monkeypatch.setattr(Toy, 'forward', lambda *_: 1 / 0)
    status, rows = check(folder)
    assert status == 1
    assert {row['name']: row['status'] for row in rows} == {'toy/network': 'agrees', 'toy/toy': 'error'}
    assert 'ZeroDivisionError' in rows[1]['note']


def test_filter_and_progress_bar(folder, monkeypatch, capsys):
    shutil.copy(folder / 'network.npz', folder / 'orphan.npz')
    monkeypatch.setenv('FORCE_COLOR', '1')
    status, rows = check(folder, '--filter', 'net*')
    assert (status, len(rows)) == (0, 1)
    assert 'agrees' in capsys.readouterr().out


def damage_json(folder):
    (folder / 'network.json').write_text('{"model": ')


def damage_numbers(folder):
    path = folder / 'network.npz'
    path.write_bytes(path.read_bytes()[:1000])


def foreign_json(folder):
    (folder / 'other.json').write_text('[1, 2]')


def lose_numbers(folder):
    (folder / 'network.npz').unlink()


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize('harm', [damage_json, damage_numbers, foreign_json, lose_numbers, empty, shutil.rmtree])
def test_bad_input_is_one_error_line(folder, harm, capsys):
    harm(folder)
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.startswith('attnzoo: error: ')
    assert captured.err.count('\n') == 1


@pytest.mark.parametrize('options', [['--filter', 'nothing*'], ['--threads', '0']])
def test_bad_options_are_refused(folder, options, capsys):
    assert main([str(folder), *options]) == 2
    assert options[0] in capsys.readouterr().err

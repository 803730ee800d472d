"""Parameter groups of whole models by what their backbones say of their weights."""

import pytest
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from zoo.openmmlab.backbone import ZooBackbone


class Model(nn.Module):
    """A backbone and one layer of a head."""

    def __init__(self, name='nat_pico', **options):
        super().__init__()
        self.backbone = ZooBackbone(name, **options)
        self.head = nn.Linear(4, 4)


def settings(model, **paramwise):
    """Name -> (rate, weight decay) of every weight that the optimiser has, and the number of groups."""
    config = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.5))
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.get('ZooOptimizer')(config, paramwise)(model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    return {names[id(w)]: (g['lr'], g['weight_decay']) for g in groups for w in g['params']}, len(groups)


def test_the_backbone_says_what_does_not_decay():
    model = Model(out_norms=True)
    found, groups = settings(model, norm_decay_mult=0.0)
    assert set(found) == {name for name, _ in model.named_parameters()}
    still = {name for name, (_, decay) in found.items() if decay == 0}
    norms = {f'{n}.{p}' for n, m in model.named_modules() if isinstance(m, nn.LayerNorm) for p in ('weight', 'bias')}
    tables = {name for name in found if name.endswith('rpb')}
    assert tables
    assert still == norms | tables
    assert groups == 2
    assert {name for name, (_, decay) in settings(model)[0].items() if decay == 0} == tables


@pytest.mark.parametrize('name', ['nat_pico', 'resnet18'])
def test_rates_fall_from_the_heads_to_the_stem(name):
    model = Model(name)
    found, _ = settings(model, layer_decay=0.5)
    rates = {name: rate for name, (rate, _) in found.items()}
    assert rates['head.weight'] == 1
    order = [rate for name, rate in rates.items() if name.startswith('backbone')]
    assert max(order) == 1
    assert order == sorted(order)
    assert len(set(order)) > 4
    assert all(rate in {0.5**i for i in range(20)} for rate in order)


def test_rates_of_custom_keys_and_layers_multiply():
    rates = {name: rate for name, (rate, _) in settings(Model(), layer_decay=0.5)[0].items()}
    custom = dict(layer_decay=0.5, custom_keys={'qkv': dict(lr_mult=0.1)})
    for name, (rate, _) in settings(Model(), **custom)[0].items():
        assert rate == pytest.approx(rates[name] * (0.1 if 'qkv' in name else 1))


def test_frozen_weights_are_left_out():
    model = Model(frozen_stages=1)
    found, _ = settings(model, layer_decay=0.9)
    assert set(found) == {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize('decay', [0, 1.5, -1])
def test_a_bad_layer_decay_is_named(decay):
    with pytest.raises(ValueError, match='layer_decay is a ratio above 0 and at most 1'):
        settings(Model(), layer_decay=decay)


def test_a_backbone_without_layers_is_named(monkeypatch):
    model = Model()
    monkeypatch.setattr(type(model.backbone.network), 'group_matcher', None)
    with pytest.raises(ValueError, match='has no group_matcher'):
        settings(model, layer_decay=0.9)

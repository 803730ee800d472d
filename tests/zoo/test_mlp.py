"""The MLP against timm's, whose names it has."""

import pytest
import timm.layers
import torch
from timm.layers import GELUTanh
from torch import nn

from ops import _linear
from tests.ops.conftest import assert_near
from zoo import mlp
from zoo.mlp import Mlp

DIM, HIDDEN = 96, 384


def both(act_layer=nn.GELU):
    """Ours and timm's, of equal weights."""
    ours, theirs = Mlp(DIM, HIDDEN, act_layer), timm.layers.Mlp(DIM, HIDDEN, act_layer=act_layer)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.fixture
def fused(monkeypatch):
    """The activations that were computed together with the layer before."""
    names = []

    def product(x, weight, bias, activation, form):
        names.append((activation, form))
        return computed(x, weight, bias, activation, form)

    computed = mlp.product
    monkeypatch.setattr(mlp, 'product', product)
    return names


@pytest.mark.parametrize('act_layer', [nn.GELU, GELUTanh, nn.ReLU])
def test_is_timms(fused, act_layer):
    ours, theirs = both(act_layer)
    x = torch.randn(2, 20, 16, DIM, requires_grad=True)
    leaves = [x, *ours.parameters()], [x, *theirs.parameters()]
    pairs = [torch.autograd.grad(m(x).square().sum(), w) for m, w in zip((ours, theirs), leaves)]
    for actual, expected in zip(*pairs):
        assert_near(actual, expected)
    assert not fused
    with torch.no_grad():
        assert_near(ours(x), theirs(x))
    forms = {nn.GELU: [('gelu', 'none')], GELUTanh: [('gelu', 'tanh')], nn.ReLU: []}
    assert fused == (forms[act_layer] if _linear.AVAILABLE else [])


@torch.no_grad()
@pytest.mark.parametrize('name', ['fc1', 'act'])
def test_hooks_see_their_module(fused, name):
    ours, theirs = both()
    x, seen = torch.randn(4, 160, DIM), []
    for model in (ours, theirs):
        model.get_submodule(name).register_forward_hook(lambda module, args, out: seen.append(out))
        model(x)
    assert not fused
    assert_near(*seen)


@torch.no_grad()
def test_a_replaced_layer_is_called(fused):
    class Doubled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return 2 * self.inner(x)

    ours, theirs = both()
    ours.fc1, theirs.fc1 = Doubled(ours.fc1), Doubled(theirs.fc1)
    x = torch.randn(4, 160, DIM)
    assert_near(ours(x), theirs(x))
    assert not fused


def test_traced_as_its_parts():
    ours, _ = both()
    called = [node.target for node in torch.fx.symbolic_trace(ours).graph.nodes if node.op == 'call_module']
    assert called == ['act', 'drop1', 'drop2']

"""The MLPs against timm's, whose names they have, and against their layers called one by one."""

import pytest
import timm.layers
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from ops import _linear, _onednn
from tests.ops.conftest import assert_near
from zoo.mlp import DepthwiseMlp, Mlp

DIM, HIDDEN = 96, 384
ACTS = {'gelu': nn.GELU, 'tanh': lambda: nn.GELU(approximate='tanh'), 'relu': nn.ReLU}


def both(act_layer=nn.GELU):
    """Ours and timm's, of equal weights."""
    ours, theirs = Mlp(DIM, HIDDEN, act_layer), timm.layers.Mlp(DIM, HIDDEN, act_layer=act_layer)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def one_by_one(mlp, x):
    """A `DepthwiseMlp` written out."""
    x = mlp.conv(nn.functional.linear(x, mlp.fc1.weight, mlp.fc1.bias).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return nn.functional.linear(nn.functional.gelu(x), mlp.fc2.weight, mlp.fc2.bias)


@pytest.fixture
def fused(monkeypatch):
    """The forms of the GELUs that were computed together with the layer before."""
    forms = []

    def product(x, weight, bias, gelu=None):
        forms.append(gelu)
        return computed(x, weight, bias, gelu)

    computed = _linear.product
    monkeypatch.setattr(_linear, 'product', product)
    return forms


def assert_same_gradients(ours, theirs, x):
    """Of two pairs of a function and its parameters."""
    pairs = [torch.autograd.grad(f(x).square().sum(), [x, *parameters]) for f, parameters in (ours, theirs)]
    for actual, expected in zip(*pairs):
        assert_near(actual, expected)


@pytest.mark.parametrize('name', ACTS)
def test_is_timms(fused, name):
    ours, theirs = both(ACTS[name])
    x = torch.randn(2, 20, 16, DIM, requires_grad=True)
    assert_same_gradients((ours, list(ours.parameters())), (theirs, list(theirs.parameters())), x)
    assert set(fused) <= {None}
    fused.clear()
    with torch.no_grad():
        assert_near(ours(x), theirs(x))
    forms = {'gelu': 'none', 'tanh': 'tanh', 'relu': None}
    assert fused == ([forms[name], None] if _onednn.AVAILABLE else [])


def test_depthwise_is_its_layers():
    mlp = DepthwiseMlp(DIM, HIDDEN)
    x = torch.randn(2, 20, 16, DIM, requires_grad=True)
    parameters = list(mlp.parameters())
    assert_same_gradients((mlp, parameters), (lambda x: one_by_one(mlp, x), parameters), x)
    with torch.no_grad():
        assert_near(mlp(x), one_by_one(mlp, x))


def test_gradients_of_gradients():
    ours, theirs = both()
    x = torch.randn(2, 20, 16, DIM, requires_grad=True)

    def second(model):
        leaves = [x, *model.parameters()]
        first = torch.autograd.grad(model(x).square().mean(), leaves, create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in first), leaves, allow_unused=True)

    for actual, expected in zip(second(ours), second(theirs)):
        assert_near(actual, expected)


@pytest.mark.skipif(not _onednn.HAS_BFLOAT16, reason='oneDNN has no bfloat16 on this processor')
@pytest.mark.parametrize('name', ['gelu', 'tanh'])
def test_bfloat16_is_near(fused, name):
    ours, theirs = (mlp.double() for mlp in both(ACTS[name]))
    rough = Mlp(DIM, HIDDEN, ACTS[name]).bfloat16()
    rough.load_state_dict(ours.state_dict())
    theirs.load_state_dict(rough.state_dict())
    x = torch.randn(2, 20, 16, DIM).bfloat16()
    with torch.no_grad():
        assert_near(rough(x), theirs(x.double()).bfloat16(), torch.bfloat16)
    assert fused == ['none' if name == 'gelu' else name]
    gradients = []
    for model, images in ((rough, x), (theirs, x.double())):
        leaves = [images.requires_grad_(), *model.parameters()]
        gradients.append(torch.autograd.grad(model(images).sum(), leaves))
    for actual, expected in zip(*gradients):
        assert_near(actual, expected.bfloat16(), torch.bfloat16)


@pytest.mark.skipif(not _onednn.AVAILABLE, reason='torch has no oneDNN and MKL')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_training_keeps_the_hidden_map_once(dtype):
    if dtype is torch.bfloat16 and not _onednn.HAS_BFLOAT16:
        pytest.skip('oneDNN has no bfloat16 on this processor')

    def kept(model):
        x, sizes = torch.randn(2, 20, 16, DIM, dtype=dtype, requires_grad=True), {}
        with saved_tensors_hooks(lambda t: sizes.update({t.data_ptr(): t.nbytes}), lambda t: t):
            model.to(dtype)(x)
        return sum(sizes.values())

    ours, theirs = both()
    assert kept(ours) == kept(theirs) - 2 * 20 * 16 * HIDDEN * dtype.itemsize


def test_dropout():
    ours, theirs = both()
    ours.drop1.p = theirs.drop1.p = 0.5
    x = torch.randn(4, 160, DIM)
    for training in (True, False):
        outputs = []
        for model in (ours, theirs):
            torch.manual_seed(0)
            outputs.append(model.train(training)(x))
        assert_near(*outputs)


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize('name', ['fc1', 'act', 'drop1', 'fc2'])
def test_hooks_see_their_module(name, grad):
    x, seen = torch.randn(4, 160, DIM), []
    with torch.set_grad_enabled(grad):
        for model in both():
            model.get_submodule(name).register_forward_hook(lambda module, args, out: seen.append(out))
            model(x)
    assert_near(*seen)


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize('name', ['fc1', 'act', 'drop1', 'fc2'])
def test_a_replaced_layer_is_called(name, grad):
    class Doubled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return 2 * self.inner(x)

    x, outputs = torch.randn(4, 160, DIM), []
    with torch.set_grad_enabled(grad):
        for model in both():
            setattr(model, name, Doubled(getattr(model, name)))
            outputs.append(model(x))
    assert_near(*outputs)


def test_traced_as_its_parts():
    ours, _ = both()
    called = [node.target for node in torch.fx.symbolic_trace(ours.eval()).graph.nodes if node.op == 'call_module']
    assert called == ['act', 'drop2']

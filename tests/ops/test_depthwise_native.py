"""Depthwise convolutions in C++ against `F.conv2d` in float64, for every processor that this one can stand in for."""

import pytest
import torch
from torch.nn import functional as F

from ops import _depthwise, _depthwise_native
from ops._depthwise import DepthwiseConv2d
from tests.ops.conftest import assert_near, needs_cpp

pytestmark = needs_cpp


@pytest.fixture
def called(monkeypatch):
    """What the C++ was asked for."""
    names, run = [], _depthwise_native.run
    monkeypatch.setattr(
        _depthwise_native, 'run', lambda name, *rest, **more: (names.append(name), run(name, *rest, **more))
    )
    monkeypatch.setattr(_depthwise, 'LEAST_NUMBERS', 0)
    return names


def exact(x, weight, bias, grad):
    """Output and gradients of maps (B, H, W, C)."""
    leaves = [y.detach().double().requires_grad_() for y in (x.permute(0, 3, 1, 2), weight, bias)]
    out = F.conv2d(*leaves, padding=weight.shape[-1] // 2, groups=len(weight))
    to_x, *others = torch.autograd.grad(out, leaves, grad.permute(0, 3, 1, 2).double())
    return out.permute(0, 2, 3, 1), to_x.permute(0, 2, 3, 1), *others


@pytest.mark.usefixtures('processor', 'threads')
@pytest.mark.parametrize('side', _depthwise_native.SIDES)
@pytest.mark.parametrize(
    'shape', [(2, 5, 9, 16), (1, 3, 2, 48), (3, 7, 7, 80), (2, 14, 13, 64), (1, 1, 1, 32), (1, 2, 30, 16)]
)
def test_output_and_gradients(shape, side):
    channels = shape[-1]
    x, grad = torch.randn(*shape[:3], 3 * channels)[..., channels : 2 * channels], torch.randn(shape)
    weight, bias = torch.randn(channels, 1, side, side), torch.randn(channels)
    expected, to_x, to_weight, to_bias = exact(x, weight, bias, grad)
    out, given = torch.empty(shape), torch.randn(shape)
    _depthwise_native.forward(x, weight, bias, out)
    assert_near(out, expected)
    _depthwise_native.forward(x, weight, None, out)
    assert_near(out, expected - bias)
    found = torch.empty(shape)
    of_weight, of_bias = _depthwise_native.backward(grad, x, weight, found, (True, True))
    for actual, wanted in ((found, to_x), (of_weight, to_weight), (of_bias, to_bias)):
        assert_near(actual, wanted)
    added = given.clone()
    assert _depthwise_native.backward(grad, x, weight, added, (False, False), add=True) == (None, None)
    assert_near(added, given + to_x)
    of_weight, of_bias = _depthwise_native.backward(grad, x, weight, None, (True, False))
    assert of_bias is None
    assert_near(of_weight, to_weight)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('frozen', [None, 'weight', 'input'])
def test_layer(bias, frozen, called):
    layer = DepthwiseConv2d(16, 5, bias=bias)
    x = torch.randn(2, 16, 9, 8).contiguous(memory_format=torch.channels_last).requires_grad_(frozen != 'input')
    layer.weight.requires_grad_(frozen != 'weight')
    leaves = [y for y in (x, *layer.parameters()) if y.requires_grad]
    out = layer(x)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=2, groups=16)
    grad = torch.randn_like(out)
    assert_near(out, expected)
    found = torch.autograd.grad(out, leaves, grad)
    assert called == ['depthwise_backward']
    for actual, wanted in zip(found, torch.autograd.grad(expected, leaves, grad)):
        assert_near(actual, wanted)


def test_second_gradients(called):
    layer = DepthwiseConv2d(16, 3)
    x = torch.randn(2, 16, 5, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    leaves = [x, layer.weight]

    def second(run):
        first = torch.autograd.grad(run().square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), leaves)

    plain = second(lambda: F.conv2d(x, layer.weight, layer.bias, padding=1, groups=16))
    for actual, wanted in zip(second(lambda: layer(x)), plain):
        assert_near(actual, wanted)


@pytest.mark.parametrize(
    'build',
    [
        lambda: (DepthwiseConv2d(18, 3), torch.channels_last),
        lambda: (DepthwiseConv2d(16, 9), torch.channels_last),
        lambda: (DepthwiseConv2d(16, 3), torch.contiguous_format),
        lambda: (DepthwiseConv2d(16, 3).double(), torch.channels_last),
    ],
    ids=['channels', 'side', 'NCHW', 'float64'],
)
def test_others_are_left_to_torch(build, called):
    layer, memory_format = build()
    x = torch.randn(2, layer.weight.shape[0], 9, 8, dtype=layer.weight.dtype).contiguous(memory_format=memory_format)
    layer(x.requires_grad_()).sum().backward()
    assert not called
    assert x.grad is not None

"""Convolutions with their activation in one pass, against the two one after the other."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ops import _conv, _onednn
from ops._conv import ConvAct, conv2d_act
from ops._onednn import Sliding
from tests.ops.conftest import assert_near

pytestmark = pytest.mark.skipif(not _onednn.AVAILABLE, reason='torch has no oneDNN and MKL')

KINDS = {
    'depthwise': lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8),
    'strided': lambda: nn.Conv2d(8, 6, 3, 2, 1),
    'dilated': lambda: nn.Conv2d(8, 6, 3, padding=2, dilation=2, bias=False),
    'of positions': lambda: nn.Conv2d(8, 6, 1),
}


@pytest.fixture
def fused(monkeypatch):
    """The forms of the GELUs that were computed together with a convolution."""
    forms = []

    def convolution(*arguments):
        forms.append(arguments[-1])
        return computed(*arguments)

    computed = _conv.convolution
    monkeypatch.setattr(_conv, 'convolution', convolution)
    return forms


def nhwc(*shape):
    """A map that is NHWC in memory."""
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@pytest.mark.parametrize('form', ['none', 'tanh'])
@pytest.mark.parametrize('kind', KINDS)
def test_is_the_two(fused, kind, form):
    layer, x = ConvAct(KINDS[kind](), nn.GELU(form)), nhwc(2, 8, 13, 9)
    out = layer(x)
    assert fused == [form]
    assert_near(out, F.gelu(layer[0](x), approximate=form))
    assert out.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@pytest.mark.skipif(not _onednn.HAS_BFLOAT16, reason='oneDNN has no bfloat16 on this processor')
def test_bfloat16_is_rounded_once(fused):
    layer, x = ConvAct(KINDS['depthwise'](), nn.GELU()).bfloat16(), nhwc(2, 8, 13, 9).bfloat16()
    exact = F.gelu(F.conv2d(x.double(), layer[0].weight.double(), layer[0].bias.double(), padding=1, groups=8))
    assert_near(layer(x), exact.bfloat16(), torch.bfloat16)
    assert fused == ['none']


@pytest.mark.parametrize(
    'name', ['training', 'NCHW', 'float16', 'float64', 'autocast', 'empty', 'ReLU', 'hook', 'no zeros']
)
def test_leaves_the_others_to_torch(fused, name):
    conv, act, x = KINDS['strided'](), nn.GELU(), nhwc(2, 8, 13, 9)
    if name == 'NCHW':
        x = torch.randn(2, 8, 13, 9)
    elif name in ('float16', 'float64'):
        conv, x = conv.to(getattr(torch, name)), x.to(getattr(torch, name))
    elif name == 'empty':
        x = x[:0]
    elif name == 'ReLU':
        act = nn.ReLU()
    elif name == 'hook':
        conv.register_forward_hook(lambda module, args, out: 2 * out)
    elif name == 'no zeros':
        conv = nn.Conv2d(8, 6, 3, padding=1, padding_mode='reflect')
    with torch.set_grad_enabled(name == 'training'), torch.autocast('cpu', enabled=name == 'autocast'):
        assert_near(ConvAct(conv, act)(x), act(conv(x)))
    assert not fused


def test_gradients():
    layer, x = ConvAct(KINDS['depthwise'](), nn.GELU()), nhwc(2, 8, 5, 6).requires_grad_()
    leaves = [x, *layer.parameters()]
    written_out = F.gelu(F.conv2d(x, layer[0].weight, layer[0].bias, padding=1, groups=8))
    ours, wanted = (torch.autograd.grad(out.square().sum(), leaves) for out in (layer(x), written_out))
    for actual, expected in zip(ours, wanted):
        assert_near(actual, expected)


@torch.no_grad()
def test_takes_another_kernel(fused):
    x, weight = nhwc(2, 8, 5, 6), torch.randn(4, 8, 2, 2)
    out = conv2d_act(x, weight, None, nn.GELU(), Sliding((2, 1), (1, 0)))
    assert_near(out, F.gelu(F.conv2d(x, weight, None, (2, 1), (1, 0))))
    assert fused == ['none']

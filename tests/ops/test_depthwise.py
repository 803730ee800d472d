"""Depthwise convolutions whose gradients are put together otherwise than torch's, against `F.conv2d`."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from ops import _depthwise, _onednn
from ops._depthwise import DepthwiseConv2d, conv2d
from ops._onednn import Sliding
from tests.ops.conftest import assert_near

pytestmark = pytest.mark.skipif(not _onednn.AVAILABLE, reason='torch has no oneDNN and MKL')


@pytest.fixture
def sliced(monkeypatch):
    """The sizes of the kernels whose gradients were put together."""
    sizes = []

    def kernel_gradient(x, gradient, size):
        sizes.append(tuple(size))
        return computed(x, gradient, size)

    computed = _depthwise.kernel_gradient
    monkeypatch.setattr(_depthwise, 'kernel_gradient', kernel_gradient)
    monkeypatch.setattr(_depthwise, 'LEAST_NUMBERS', 0)
    return sizes


needs_bfloat16 = pytest.mark.skipif(not _onednn.HAS_BFLOAT16, reason='oneDNN has no bfloat16 on this CPU')
TYPES = [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)]


def exact(*tensors):
    """In float64, as leaves of their own."""
    return [t.detach().double().requires_grad_() for t in tensors]


def gradients(out, leaves):
    return torch.autograd.grad(out.square().sum(), leaves)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('kernel_size', [5, 7, 9, 11])
def test_gradients(sliced, kernel_size, bias, memory_format, dtype):
    layer = DepthwiseConv2d(6, kernel_size, bias=bias, dtype=dtype)
    x = torch.randn(3, 6, 13, 11, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
    leaves = [x, *layer.parameters()]
    same = exact(*leaves)
    out, expected = layer(x), F.conv2d(*same, padding=kernel_size // 2, groups=6)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, leaves, grad)
    for actual, wanted in zip(found, torch.autograd.grad(expected, same, grad.double())):
        assert actual.dtype is dtype
        assert_near(actual, wanted, dtype)
    assert sliced == [(kernel_size, kernel_size)]


@needs_bfloat16
@pytest.mark.parametrize('kernel_size', [3, 5])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('stride', [(2, 2), (1, 3)])
def test_inputs_of_strided_kernels_have_gradients_by_way_of_float32(monkeypatch, stride, memory_format, kernel_size):
    dtypes, computed = [], _depthwise.gradients

    def noted(grad, *others):
        dtypes.append(grad.dtype)
        return computed(grad, *others)

    monkeypatch.setattr(_depthwise, 'gradients', noted)
    x, weight = torch.randn(2, 5, 10, 9).bfloat16(), torch.randn(5, 1, kernel_size, kernel_size).bfloat16()
    leaves = [x.contiguous(memory_format=memory_format).requires_grad_(), weight.requires_grad_()]
    sliding = Sliding(stride, (1, 2), (1, 1), 5)
    same = exact(*leaves)
    out, expected = conv2d(*leaves, None, sliding), F.conv2d(*same, None, *sliding)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, leaves, grad)
    for actual, wanted in zip(found, torch.autograd.grad(expected, same, grad.double())):
        assert actual.dtype is torch.bfloat16
        assert_near(actual, wanted, torch.bfloat16)
    assert sorted(map(str, dtypes)) == ['torch.bfloat16', 'torch.float32']


@pytest.mark.parametrize('kernel_size', [0, 4, -1])
def test_refuses_even_kernels(kernel_size):
    with pytest.raises(ValueError, match=f'kernel_size must be odd.*got {kernel_size}'):
        DepthwiseConv2d(4, kernel_size)


@pytest.mark.parametrize('size', [(3, 5), (1, 7), (7, 5)])
def test_kernels_of_two_sides(sliced, size):
    x, weight = torch.randn(2, 4, 9, 8), torch.randn(4, 1, *size, requires_grad=True)
    padding = (size[0] // 2, size[1] // 2)
    ours = conv2d(x, weight, None, Sliding(padding=padding, groups=4))
    theirs = F.conv2d(x, weight, None, padding=padding, groups=4)
    assert_near(gradients(ours, weight)[0], gradients(theirs, weight)[0])
    assert sliced == [size]


@pytest.mark.parametrize('frozen', ['input', 'weight', 'bias'])
def test_only_what_is_asked_for(sliced, frozen):
    layer, x = DepthwiseConv2d(4, 5), torch.randn(2, 4, 6, 7, requires_grad=True)
    leaves = {'input': x, 'weight': layer.weight, 'bias': layer.bias}
    leaves.pop(frozen).requires_grad_(False)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=2, groups=4)
    for actual, wanted in zip(gradients(layer(x), leaves.values()), gradients(expected, leaves.values())):
        assert_near(actual, wanted)
    assert sliced == ([] if frozen == 'weight' else [(5, 5)])


@pytest.mark.parametrize(
    'name', ['narrow map', 'narrow kernel', 'stride', 'dilation', 'padding', 'even', 'groups', 'double', 'autocast']
)
def test_leaves_the_others_to_torch(sliced, name):
    x, weight, sliding = torch.randn(2, 4, 12, 12), torch.randn(4, 1, 5, 5), Sliding(padding=(2, 2), groups=4)
    if name == 'narrow map':
        x = x[..., :4]
    elif name == 'narrow kernel':
        weight, sliding = weight[..., :3], sliding._replace(padding=(2, 1))
    elif name == 'stride':
        sliding = sliding._replace(stride=(2, 2))
    elif name == 'dilation':
        sliding = sliding._replace(dilation=(2, 2))
    elif name == 'padding':
        sliding = sliding._replace(padding=(0, 2))
    elif name == 'even':
        weight = weight[..., :4]
    elif name == 'groups':
        weight, sliding = torch.randn(4, 2, 5, 5), sliding._replace(groups=2)
    elif name == 'double':
        x, weight = x.double(), weight.double()
    weight = weight.contiguous().requires_grad_()
    with torch.autocast('cpu', enabled=name == 'autocast'):
        ours, theirs = conv2d(x, weight, None, sliding), F.conv2d(x, weight, None, *sliding)
    assert torch.equal(gradients(ours, weight)[0], gradients(theirs, weight)[0])
    assert not sliced


def test_second_derivatives(sliced):
    layer, x = DepthwiseConv2d(4, 5), torch.randn(2, 4, 6, 7, requires_grad=True)
    leaves = [x, *layer.parameters()]

    def twice(out):
        first = torch.autograd.grad(out.pow(3).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), leaves)

    expected = F.conv2d(x, layer.weight, layer.bias, padding=2, groups=4)
    for actual, wanted in zip(twice(layer(x)), twice(expected)):
        assert_near(actual, wanted)
    assert sliced


def test_transforms(sliced):
    layer, x = DepthwiseConv2d(4, 5), torch.randn(3, 1, 4, 6, 7)
    parameters = dict(layer.named_parameters())

    def loss(parameters, x):
        return functional_call(layer, parameters, (x,)).square().sum()

    each = vmap(grad(loss), (None, 0))(parameters, x)
    for i, name in itertools.product(range(3), parameters):
        assert_near(each[name][i], gradients(layer(x[i]), parameters[name])[0])
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(layer(forward_ad.make_dual(x[0], x[1]))).tangent
    assert_near(tangent, F.conv2d(x[1], layer.weight, None, padding=2, groups=4))


def test_is_a_layer_of_torch():
    layer, x = DepthwiseConv2d(4, 5), torch.randn(2, 4, 6, 7)
    plain = nn.Conv2d(4, 4, 5, padding=2, groups=4)
    assert layer.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(layer.state_dict())
    for other in (plain, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(layer(x), other(x))

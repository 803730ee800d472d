"""Deformable merging against torchvision's deformable convolution, gradients included."""

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from ops import DeformableTokenMerging
from ops.conv.deformable_merging import DeformablePatchConv2d
from tests.ops.conftest import assert_near


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('deviation', [0.0, 0.3], ids=['start', 'moved'])
@pytest.mark.parametrize(('size', 'patch_size'), [((8, 12), 2), ((7, 9), 2), ((56, 3), 2), ((7, 12), 3)])
def test_is_deformable_convolution_with_its_gradients(size, patch_size, deviation, dtype):
    torch.manual_seed(0)
    conv = DeformablePatchConv2d(5, 6, patch_size, dtype=dtype)
    assert not conv.offset.weight.any()
    nn.init.normal_(conv.offset.weight, std=deviation)
    x = torch.randn(2, 5, *size, dtype=dtype, requires_grad=True)
    leaves = [x, *conv.parameters()]
    actual, expected = conv(x), deform_conv2d(x, conv.offset(x), conv.weight, conv.bias, stride=patch_size)
    assert_near(actual, expected, dtype)
    upstream = torch.randn_like(actual)
    for gradient, wanted in zip(*(torch.autograd.grad(out, leaves, upstream) for out in (actual, expected))):
        assert_near(gradient, wanted, dtype)


@pytest.mark.parametrize(
    ('size', 'merged'), [((8, 6), (4, 3)), ((7, 9), (3, 4)), ((1, 5), (1, 2)), ((5, 1), (2, 1)), ((1, 1), (1, 1))]
)
def test_odd_ends_are_dropped_and_a_single_position_stays(size, merged):
    module = DeformableTokenMerging(4).eval()
    assert module(torch.randn(2, 4, *size)).shape == (2, 8, *merged)
    assert DeformableTokenMerging(4, 6).eval()(torch.randn(0, 4, *size)).shape == (0, 6, *merged)


def merging():
    torch.manual_seed(0)
    module = DeformableTokenMerging(8).eval()
    nn.init.normal_(module.conv.offset.weight, std=0.5)
    return module, torch.randn(2, 8, 9, 14)


def test_low_precision_keeps_the_positions():
    module, x = merging()
    exact = module(x)
    with torch.autocast('cpu', torch.bfloat16):
        assert_near(module(x), exact, torch.bfloat16)
    rough = module.bfloat16()(x.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert_near(rough, exact, torch.bfloat16)


def test_compiles_and_exports():
    torch.compiler.reset()
    module, x = merging()
    assert_near(torch.compile(module, fullgraph=True, backend='aot_eager')(x), module(x))
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=64)},))
    more = torch.cat([x, x[:1]])
    assert_near(program.module()(more), module(more))

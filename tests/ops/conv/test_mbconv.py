"""MBConv and TensorFlow's padding, against sums over the pixels that the definition names."""

import pytest
import torch
from torch.nn import functional as F

from ops import MBConv
from ops.conv.mbconv import SameAvgPool2d, SameConv2d
from tests.ops.conftest import assert_near


@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('kernel_size', [2, 3, 5])
@pytest.mark.parametrize('size', [(1, 1), (4, 7), (8, 6), (9, 5)], ids=str)
def test_same_convolution_sums_over_the_pixels_around(size, kernel_size, stride):
    conv = SameConv2d(2, 3, kernel_size, stride).double()
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    y = conv(x)
    assert y.shape[2:] == tuple(-(-side // stride) for side in size)
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            total = conv.bias.clone().expand(2, 3)
            for i in range(kernel_size):
                for j in range(kernel_size):
                    at = []
                    for side, out, step in zip(size, (row, column), (i, j)):
                        padding = max((-(-side // stride) - 1) * stride + kernel_size - side, 0)
                        at.append(out * stride + step - padding // 2)
                    if 0 <= at[0] < size[0] and 0 <= at[1] < size[1]:
                        total = total + x[:, :, at[0], at[1]] @ conv.weight[:, :, i, j].T
            assert_near(y[:, :, row, column], total, torch.float64)


def test_the_pooling_counts_zeros_beyond_the_edge():
    x = torch.ones(1, 1, 3, 4)
    assert SameAvgPool2d(2)(x).tolist() == [[[[1, 1], [0.5, 0.5]]]]


@pytest.mark.parametrize(('dim', 'out_dim', 'stride'), [(6, None, 1), (6, 8, 2), (6, 6, 2), (6, 4, 1)])
def test_is_the_formula(dim, out_dim, stride):
    module = MBConv(dim, out_dim, stride, expand_ratio=3, se_reduction=6).double().eval()
    for norm in (module.pre_norm, module.expand_norm, module.depthwise_norm):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            torch.nn.init.normal_(tensor)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(2, dim, 7, 10, dtype=torch.float64)

    def normed(norm, x):
        mean, variance, weight, bias = (
            t[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (x - mean) / (variance + 1e-3).sqrt() * weight + bias

    y = torch.einsum('bchw,dc->bdhw', normed(module.pre_norm, x), module.expand_conv.weight[:, :, 0, 0])
    y = F.gelu(normed(module.expand_norm, y), approximate='tanh')
    y = F.gelu(normed(module.depthwise_norm, module.depthwise_conv(y)), approximate='tanh')
    y = y * module.se.fc2(F.silu(module.se.fc1(y.mean((2, 3), keepdim=True)))).sigmoid()
    shortcut = x if stride == 1 else F.avg_pool2d(F.pad(x, (0, 0, 0, 1)), 2)
    if out_dim not in (None, dim):
        shortcut = module.shortcut_conv(shortcut)
    assert_near(module(x), module.shrink_conv(y) + shortcut, torch.float64)
    assert module.se.fc1.out_channels == (out_dim or dim) // 2


def test_the_branch_passes_drop_path():
    module = MBConv(6, drop_path=torch.nn.Dropout(1.0))
    x = torch.randn(1, 6, 4, 4)
    assert torch.equal(module(x), x)


def test_memory_layout_stays():
    x = torch.randn(2, 6, 8, 8).contiguous(memory_format=torch.channels_last)
    assert MBConv(6, 8, 2)(x).is_contiguous(memory_format=torch.channels_last)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match='stride=0'):
        MBConv(6, stride=0)
    with pytest.raises(ValueError, match='expand_ratio=0'):
        MBConv(6, expand_ratio=0)
    with pytest.raises(ValueError, match='reduction 25 leaves none of 24 channels'):
        MBConv(6, se_reduction=25)


def test_without_a_gate():
    assert not [key for key in MBConv(6, se_reduction=0).state_dict() if 'se.' in key]

"""Efficient local attention against its formula, one row or column at a time."""

import math

import pytest
import torch
from torch.nn import functional as F

from ops.gate.ela import EfficientLocalAttention, SeparateLocalAttention
from ops.registry import build
from tests.ops.gate.conftest import assert_is, lively


def convolved(weight, means):
    """(B, C, L) under kernels (C, G, K): each channel sees the G of its group."""
    dim, width, size = weight.shape
    padded = F.pad(means, (size // 2, size // 2))
    out = []
    for channel in range(dim):
        first = channel // width * width
        group = padded[:, first : first + width]
        steps = [(group[:, :, i : i + size] * weight[channel]).sum((1, 2)) for i in range(means.shape[2])]
        out.append(torch.stack(steps, 1))
    return torch.stack(out, 1)


def normed(norm, x):
    out = torch.empty_like(x)
    width = x.shape[1] // norm.num_groups
    for first in range(0, x.shape[1], width):
        group = x[:, first : first + width].flatten(1)
        mean = group.mean(1)[:, None, None]
        deviation = (group.var(1, correction=0) + norm.eps).sqrt()[:, None, None]
        out[:, first : first + width] = (x[:, first : first + width] - mean) / deviation
    return out * norm.weight[:, None] + norm.bias[:, None]


@pytest.mark.parametrize(('kernel_size', 'group_width', 'norm_groups'), [(5, 1, 4), (7, 4, 2), (3, 2, 8)])
def test_is_the_formula_with_its_gradients(kernel_size, group_width, norm_groups):
    module = lively(EfficientLocalAttention(8, kernel_size, group_width, norm_groups))

    def formula(x):
        rows, columns = x.sum(3) / x.shape[3], x.sum(2) / x.shape[2]
        rows, columns = (normed(module.norm, convolved(module.conv.weight, m)).sigmoid() for m in (rows, columns))
        return x * torch.einsum('bci,bcj->bcij', rows, columns)

    assert_is(module, formula, torch.randn(2, 8, 5, 6))


def test_form_of_timm_is_the_formula_with_its_gradients():
    module = lively(SeparateLocalAttention(6, 5))

    def factors(conv, norm, means):
        scores = normed(norm, convolved(conv.weight.flatten(2), means))
        return (scores * scores.sigmoid()).sigmoid()

    def formula(x):
        rows = factors(module.conv_h, module.norm_h, x.sum(3) / x.shape[3])
        columns = factors(module.conv_w, module.norm_w, x.sum(2) / x.shape[2])
        return x * torch.einsum('bci,bcj->bcij', rows, columns)

    assert_is(module, formula, torch.randn(2, 6, 5, 4))


def test_sizes_of_the_paper():
    # kernel size, convolution groups and norm groups for 64 channels
    paper = {'t': (5, 64, 32), 'b': (7, 64, 16), 's': (5, 8, 16), 'l': (7, 8, 16)}
    for size, numbers in paper.items():
        module = build(f'ela_{size}', 64)
        assert (module.conv.kernel_size[0], module.conv.groups, module.norm.num_groups) == numbers


@pytest.mark.parametrize('dim', [24, 35])
def test_width_that_the_groups_do_not_divide(dim):
    module = EfficientLocalAttention(dim, group_width=8)
    assert module.norm.num_groups == math.gcd(dim, 16)
    assert module.conv.weight.shape[1] == math.gcd(dim, 8)
    assert module(torch.randn(1, dim, 1, 1)).isfinite().all()


def test_impossible_arguments():
    with pytest.raises(ValueError, match='kernel_size 4'):
        EfficientLocalAttention(8, 4)
    with pytest.raises(ValueError, match='kernel_size 4'):
        SeparateLocalAttention(8, 4)
    with pytest.raises(ValueError, match='norm_groups=0'):
        EfficientLocalAttention(8, norm_groups=0)

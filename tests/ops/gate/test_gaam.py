"""Gaussian adaptive attention against its formula, one line of values at a time."""

import math

import pytest
import torch

from ops.gate.gaam import GaussianAdaptiveAttention, GaussianBlock, GaussianHead
from tests.ops.gate.conftest import assert_is


def lively(module):
    for head in (head for head in module.modules() if isinstance(head, GaussianHead)):
        torch.nn.init.normal_(head.mean_offsets, std=0.3)
        torch.nn.init.uniform_(head.c, 0.7, 1.5)
    return module.double()


def line(head, values):
    """One line of values along the axis."""
    keep = [head.padding_value is None or value.item() != head.padding_value for value in values]
    seen = [value if kept else 0 * value for value, kept in zip(values, keep)]
    mean = sum(seen) / len(seen)
    variance = sum((value - mean) ** 2 for value in seen) / (len(seen) - 1) + head.eps
    densities = []
    for value in values:
        density = 1
        for offset, width in zip(head.mean_offsets, head.c):
            distance = (value - mean - offset) / variance.sqrt()
            density = density * torch.exp(-(distance**2) / (2 * width**2)) / (2 * math.pi * width**2).sqrt()
        densities.append(density)
    total = torch.clamp(sum(densities), min=head.eps)
    return torch.stack([v * d / total if kept else v for v, d, kept in zip(values, densities, keep)])


def along(head, x):
    """Each line of `x` along the axis of the head."""
    moved = x.movedim(head.norm_axis, -1)
    lines = [line(head, values) for values in moved.reshape(-1, moved.shape[-1])]
    return torch.stack(lines).reshape(moved.shape).movedim(-1, head.norm_axis)


@pytest.mark.parametrize('num_gaussians', [1, 3])
@pytest.mark.parametrize('norm_axis', [1, 2, -1])
def test_head_is_the_formula_with_its_gradients(norm_axis, num_gaussians):
    head = lively(GaussianHead(norm_axis, num_gaussians))
    assert_is(head, lambda x: along(head, x), torch.randn(2, 4, 3, 5))


def test_padding_passes_unchanged_and_counts_as_zero():
    head = lively(GaussianHead(padding_value=7.0))
    x = torch.randn(2, 6, 3)
    x[:, 4:, 1:] = 7.0
    assert torch.equal(head(x.double())[:, 4:, 1:], x[:, 4:, 1:].double())
    assert_is(head, lambda x: along(head, x), x)


@pytest.mark.parametrize(('dim', 'num_heads'), [(8, 2), (9, 4)])
def test_heads_part_the_axis_and_the_last_takes_the_rest(dim, num_heads):
    module = lively(GaussianAdaptiveAttention(dim, num_heads))
    width = dim // num_heads

    def formula(x):
        ends = [*range(width, width * num_heads, width), dim]
        pieces = [x[:, i * width : end] for i, end in enumerate(ends)]
        return torch.cat([along(head, piece) for head, piece in zip(module.heads, pieces)], 1)

    assert_is(module, formula, torch.randn(2, dim, 2, 2))


def test_block_adds_each_layer():
    block = lively(GaussianBlock(6, (2, 1), (2, 3), (1, 2)))
    first, second = block.layers
    x = torch.randn(2, 6, 4, 4).double()
    torch.testing.assert_close(block(x), x + first(x) + second(x + first(x)))


def test_flat_map_stays_finite_in_float16():
    head = GaussianHead(dtype=torch.float16)
    assert head(torch.ones(1, 4, 2, 2, dtype=torch.float16)).isfinite().all()


def test_impossible_arguments():
    with pytest.raises(ValueError, match='num_gaussians is 0'):
        GaussianHead(num_gaussians=0)
    with pytest.raises(ValueError, match='num_heads 9 leaves none of 8 channels'):
        GaussianAdaptiveAttention(8, 9)
    with pytest.raises(ValueError, match='one entry per layer'):
        GaussianBlock(8, (4, 4))
    with pytest.raises(ValueError, match='axis 3 of 3 values cannot be parted among 4 heads'):
        GaussianAdaptiveAttention(8, 4, norm_axis=3)(torch.randn(1, 8, 5, 3))

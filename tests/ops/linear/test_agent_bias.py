"""The bias of agents and positions as products."""

import pytest
import torch

from ops import AgentAttention
from ops.linear.agent_bias import agent_bias, axis_matrix, bias_matrix, bias_of_axes, resized_bias
from tests.ops.conftest import assert_near


@pytest.mark.parametrize('grid', [(7, 7), (14, 14), (3, 11)])
@pytest.mark.parametrize('prefix', [(), (2,)])
def test_the_matrix_of_the_bias_is_its_interpolation(grid, prefix):
    parts = [torch.randn(2, 5, length) for length in (49, 4, 9, *prefix)]
    actual = agent_bias(parts, grid)
    matrix = bias_matrix((49, 4, 9, *prefix), grid)
    assert not matrix.is_inference()
    assert_near(actual, resized_bias(parts, grid))


@pytest.mark.parametrize('grid', [(7, 7), (56, 56), (33, 64), (3, 11)])
@pytest.mark.parametrize('prefix', [(), (2,)])
def test_axes_apart_are_the_interpolation_with_its_gradients(grid, prefix):
    parts = [torch.randn(2, 5, length, requires_grad=True) for length in (49, 33, 64, *prefix)]
    actual, expected = bias_of_axes(parts, grid), resized_bias(parts, grid)
    assert_near(actual, expected)
    grad = torch.randn_like(actual)
    for ours, plain in zip(torch.autograd.grad(actual, parts, grad), torch.autograd.grad(expected, parts, grad)):
        assert_near(ours, plain)


def test_large_maps_take_the_axes_apart():
    parts = [torch.randn(2, 5, length) for length in (49, 56, 56)]
    assert torch.equal(agent_bias(parts, (56, 56)), bias_of_axes(parts, (56, 56)))


@pytest.mark.parametrize('size', [4, 40])
def test_matrices_made_in_inference_serve_training(size):
    bias_matrix.cache_clear()
    axis_matrix.cache_clear()
    module, x = AgentAttention(8, 2, size, agent_num=4), torch.randn(1, size, size, 8)
    with torch.inference_mode():
        module(x)
    module(x).sum().backward()
    assert module.core.an_bias.grad is not None

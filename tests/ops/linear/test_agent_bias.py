"""The bias of agents and positions as one product with a matrix."""

import pytest
import torch

from ops import AgentAttention
from ops.linear.agent_bias import agent_bias, bias_matrix, resized_bias
from tests.ops.conftest import assert_near


@pytest.mark.parametrize('grid', [(7, 7), (14, 14), (3, 11)])
@pytest.mark.parametrize('prefix', [(), (2,)])
def test_the_matrix_of_the_bias_is_its_interpolation(grid, prefix):
    parts = [torch.randn(2, 5, length) for length in (49, 4, 9, *prefix)]
    actual = agent_bias(parts, grid)
    matrix = bias_matrix((49, 4, 9, *prefix), grid)
    assert not matrix.is_inference()
    assert_near(actual, resized_bias(parts, grid))


def test_a_matrix_made_in_inference_serves_training():
    bias_matrix.cache_clear()
    module, x = AgentAttention(8, 2, 4, agent_num=4), torch.randn(1, 4, 4, 8)
    with torch.inference_mode():
        module(x)
    module(x).sum().backward()
    assert module.core.an_bias.grad is not None

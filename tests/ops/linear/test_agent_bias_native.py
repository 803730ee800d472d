"""The biases of agents in C++ against their interpolation, as built for every kind of processor."""

import pytest
import torch

from ops import AgentAttention, _native
from ops.linear import agent_bias_native
from ops.linear.agent_bias import AXES_OF_KEYS, AXES_OF_QUERIES, as_parts, resized_bias
from tests.ops.conftest import assert_near, needs_cpp

pytestmark = needs_cpp


def make_tables(of_keys, of_queries, prefix, agents=5, heads=2):
    """The parameters of an `AgentCore` for maps (H, W) of keys and of queries."""
    (H, W), (h, w) = of_keys, of_queries
    shapes = [(heads, agents, 7, 7), (1, heads, agents, H, 1), (1, heads, agents, 1, W), (1, heads, agents, prefix)]
    shapes += [(heads, agents, 7, 7), (1, heads, h, 1, agents), (1, heads, 1, w, agents), (1, heads, prefix, agents)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes if 0 not in shape]


def plain_biases(grids, tables):
    half = len(tables) // 2
    of_keys, of_queries = as_parts(tables[:half], AXES_OF_KEYS), as_parts(tables[half:], AXES_OF_QUERIES)
    return resized_bias(of_keys, grids[0]), resized_bias(of_queries, grids[1])


GRIDS = {
    'own size': ((14, 14), (14, 14)),
    'lines of whole vectors': ((3, 16), (2, 32)),
    'two sizes': ((7, 7), (56, 56)),
    'smaller and larger': ((3, 11), (33, 63)),
    'one position': ((1, 1), (1, 9)),
}


@pytest.mark.usefixtures('processor', 'threads')
@pytest.mark.parametrize('grids', GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize('prefix', [0, 2])
def test_native_biases_are_the_interpolation_with_its_gradients(grids, prefix):
    tables = make_tables((14, 14), (14, 14), prefix)
    assert agent_bias_native.takes(tables)
    actual = agent_bias_native.agent_biases(grids, tables)
    expected = plain_biases(grids, [x.double() for x in tables])
    given = [torch.randn_like(x) for x in actual]
    exact = torch.autograd.grad(expected, tables, [x.double() for x in given])
    for ours, wanted in zip((*actual, *torch.autograd.grad(actual, tables, given)), (*expected, *exact), strict=True):
        assert_near(ours, wanted)
    with torch.no_grad():
        for ours, wanted in zip(agent_bias_native.agent_biases(grids, tables), actual, strict=True):
            assert torch.equal(ours, wanted)


def test_native_biases_have_second_gradients_and_many_at_a_time():
    grids, tables = ((5, 6), (5, 6)), make_tables((4, 6), (5, 3), 1)
    given = [torch.randn(2, 5, 31, requires_grad=True) for _ in grids]
    directions = [torch.randn(3, 2, 5, 31) for _ in grids]

    def derivatives(run):
        results = run(grids, tables)
        first = torch.autograd.grad(results, tables, given, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), given)
        return *second, *torch.autograd.grad(run(grids, tables), tables, directions, is_grads_batched=True)

    for ours, wanted in zip(derivatives(agent_bias_native.agent_biases), derivatives(plain_biases), strict=True):
        assert_near(ours, wanted)


@pytest.mark.parametrize('prefix', [0, 1])
def test_modules_take_the_native_biases_and_do_without(prefix, monkeypatch):
    module = AgentAttention(32, 2, (6, 9), agent_num=4, prefix_tokens=prefix).core
    found = module.biases((6, 9), (6, 9))
    assert type(found[0].grad_fn).__name__ == 'NativeBiasBackward'
    monkeypatch.setattr(_native, 'kernels', lambda: None)
    for ours, wanted in zip(found, module.biases((6, 9), (6, 9)), strict=True):
        assert_near(ours, wanted)

"""Agent attention in C++ against the plain form, as built for every processor that this one can stand in for."""

import pytest
import torch

from ops import AgentAttention, ReducedAgentAttention, WindowAgentAttention, _native
from ops.linear import agent, agent_bias, agent_bias_native, agent_native
from tests.ops.conftest import assert_near, needs_cpp
from tests.ops.linear.test_agent_products import lively, run

pytestmark = needs_cpp


@pytest.fixture
def calls(monkeypatch):
    """How often the C++ was called for an output."""
    made, call = [], agent_native.agent_attention

    def count(*arguments):
        made.append(arguments)
        return call(*arguments)

    monkeypatch.setattr(agent_native, 'agent_attention', count)
    return made


CASES = {
    'whole cells': (lambda: AgentAttention(48, 3, 6, agent_num=9), (2, 6, 6), ()),
    'cells that overlap': (lambda: AgentAttention(96, 3, (5, 8), agent_num=9), (2, 5, 8), ()),
    'fewer positions than agents': (lambda: AgentAttention(32, 2, 3, agent_num=16), (2, 3, 1), ()),
    'another size': (lambda: AgentAttention(128, 2, 4, agent_num=4), (3, 13, 7), ()),
    'prefix': (lambda: AgentAttention(48, 3, 4, agent_num=4, prefix_tokens=2), (2, 2 + 24), ((4, 6),)),
    'dense agents': (lambda: AgentAttention(96, 2, 6, agent_num=4, agent_shape=(3, 5)), (2, 6, 6), ()),
    'many agents': (lambda: AgentAttention(64, 2, 12, agent_num=49), (1, 12, 12), ()),
    'one head': (lambda: ReducedAgentAttention(48, 1, 1, 6, agent_num=4, kernel_size=5), (2, 6, 6), ()),
    'two sources': (lambda: ReducedAgentAttention(32, 2, 1, 6, agent_num=4, qk_scale=0.7), (2, 6, 6), ()),
    'windows': (lambda: WindowAgentAttention(32, 2, (3, 4), 1, agent_num=4), (2, 7, 9), ()),
    'many positions': (lambda: AgentAttention(16, 1, 20, agent_num=9), (1, 20, 20), ()),
}


def make(case):
    build, shape, grid = CASES[case]
    module = lively(build())
    return module, torch.randn(*shape, module.proj.in_features, requires_grad=True), grid


def plainly(monkeypatch):
    monkeypatch.setattr(agent, 'takes', lambda *_: False)
    monkeypatch.setattr(agent_bias_native, 'takes', lambda _: False)
    monkeypatch.setattr(agent_bias, 'is_ordinary', lambda _: False)


@pytest.mark.usefixtures('processor', 'threads')
@pytest.mark.parametrize('case', CASES)
def test_equals_the_plain_form_with_all_gradients(case, calls, monkeypatch):
    module, x, grid = make(case)
    actual = run(module, x, *grid)
    assert len(calls) == 2
    plainly(monkeypatch)
    for ours, plain in zip(actual, run(module, x, *grid)):
        assert_near(ours, plain)


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('case', ['whole cells', 'prefix', 'many positions'])
def test_scores_may_be_of_any_size(case, calls):
    """Scores of hundreds are rounded by 1e-5, and weights by as much of themselves."""
    module, x, grid = make(case)
    with torch.no_grad():
        for bias in (module.core.an_bias, module.core.ha_bias):
            bias.copy_(bias.sign() * 100)
        module.core.scale = 2.0
    actual = run(module, x, *grid)
    assert len(calls) == 2
    for ours, exact in zip(actual, run(module.double(), x.detach().double().requires_grad_(), *grid)):
        assert (ours - exact).abs().max() <= 1e-4 * max(1.0, exact.abs().max())
    assert len(calls) == 2


@pytest.mark.usefixtures('processor')
def test_nan_is_not_hidden(calls):
    module, x, _ = make('many agents')
    with torch.no_grad():
        x[0, 3, 4, 5] = float('nan')
        assert module(x).isnan().all()
    assert calls


@pytest.mark.parametrize('case', ['whole cells', 'cells that overlap', 'prefix', 'windows'])
def test_second_gradients_and_many_at_a_time(case, calls, monkeypatch):
    module, x, grid = make(case)
    leaves, directions = [x, *module.parameters()], torch.randn(2, *x.shape)

    def derivatives():
        out = module(x, *grid)
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), leaves)
        return *second, *torch.autograd.grad(module(x, *grid), leaves, directions, is_grads_batched=True)

    actual = derivatives()
    assert len(calls) == 2
    plainly(monkeypatch)
    for ours, plain in zip(actual, derivatives()):
        assert_near(ours, plain)


@pytest.mark.parametrize('case', ['whole cells', 'prefix'])
def test_results_may_be_changed_in_place_and_inputs_lie_anyhow(case, calls):
    module, x, grid = make(case)
    x = x if grid else x.flatten(1, 2)
    x = x.detach().mT.contiguous().mT.requires_grad_()
    sides = grid or (CASES[case][1][1:],)
    out = module.core(x, x, x, *sides)
    out += 1
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    (expected,) = torch.autograd.grad((module.core(x, x, x, *sides) + 1).square().sum(), x)
    assert_near(gradient, expected)
    assert len(calls) == 2


def test_training_keeps_no_weights():
    module = AgentAttention(64, 2, 28, agent_num=49)
    x = torch.randn(1, 28 * 28, 64)
    q, k, v = (torch.randn_like(x).requires_grad_() for _ in range(3))
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda y: kept.setdefault(y.data_ptr(), y), lambda y: y):
        module.core(q, k, v, (28, 28))
    shapes = sorted(tuple(y.shape) for y in kept.values() if y.numel() > 10_000)
    biases = [(2, 49, 784)] * 2
    assert [shape for shape in shapes if shape[-1] == 784 and len(shape) == 3] == biases
    assert not [shape for shape in shapes if shape[0] == 2 and shape not in biases and 784 in shape]


@pytest.mark.parametrize(
    'build',
    [
        lambda: AgentAttention(24, 2, 4, agent_num=4),
        lambda: AgentAttention(32, 2, 4, agent_num=144),
    ],
    ids=['channels', 'agents'],
)
def test_other_sizes_are_left_to_torch(build, calls):
    build()(torch.randn(1, 4, 4, build().proj.in_features))
    assert not calls


def test_without_a_library_torch_does_the_work(calls, monkeypatch):
    module, x, grid = make('whole cells')
    expected = run(module, x, *grid)
    assert len(calls) == 2
    monkeypatch.setattr(_native, 'kernels', lambda: None)
    for ours, plain in zip(expected, run(module, x, *grid)):
        assert_near(ours, plain)
    assert len(calls) == 2

"""Agent attention in float32 on the CPU, by products and one function, against the plain form."""

import pytest
import torch
from torch import nn

from ops import AgentAttention, ReducedAgentAttention, WindowAgentAttention
from ops.linear import agent, agent_bias, agent_products
from tests.ops.conftest import assert_near


@pytest.fixture
def calls(monkeypatch):
    """How often the products were called."""
    made = []

    def count(*arguments):
        made.append(arguments[-1])
        return agent_products.agent_products(*arguments)

    monkeypatch.setattr(agent, 'agent_products', count)
    return made


def lively(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def run(module, x, *grid):
    """Output of inference, output of training, and all gradients."""
    leaves = [x, *module.parameters()]
    with torch.inference_mode():
        inferred = module(x.detach(), *grid)
    out = module(x, *grid)
    return inferred, out, *torch.autograd.grad(out.square().sum(), leaves)


CASES = {
    'whole cells': (lambda: AgentAttention(12, 3, 6, agent_num=9), (2, 6, 6), ()),
    'cells that overlap': (lambda: AgentAttention(12, 3, (5, 8), agent_num=9), (2, 5, 8), ()),
    'fewer positions than agents': (lambda: AgentAttention(12, 2, 3, agent_num=16), (2, 3, 1), ()),
    'another size': (lambda: AgentAttention(12, 2, 4, agent_num=4), (3, 13, 7), ()),
    'prefix': (lambda: AgentAttention(12, 3, 4, agent_num=4, prefix_tokens=2), (2, 2 + 24), ((4, 6),)),
    'dense agents': (lambda: AgentAttention(12, 2, 6, agent_num=4, agent_shape=(3, 5)), (2, 6, 6), ()),
    'one head': (lambda: ReducedAgentAttention(8, 1, 1, 6, agent_num=4, kernel_size=5), (2, 6, 6), ()),
    'two sources': (lambda: ReducedAgentAttention(8, 2, 1, 6, agent_num=4, qk_scale=0.7), (2, 6, 6), ()),
    'windows': (lambda: WindowAgentAttention(8, 2, (3, 4), 1, agent_num=4), (2, 7, 9), ()),
    'one channel': (lambda: AgentAttention(1, 1, 1, agent_num=1), (1, 1, 1), ()),
}


@pytest.mark.parametrize('chunk', [1, agent_products.CHUNK])
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_equals_the_plain_form_with_all_gradients(case, chunk, calls, monkeypatch):
    build, shape, grid = case
    module = lively(build())
    x = torch.randn(*shape, module.proj.in_features, requires_grad=True)
    monkeypatch.setattr(agent_products, 'CHUNK', chunk)
    actual = run(module, x, *grid)
    assert len(calls) == 2
    monkeypatch.setattr(agent, 'takes', lambda *_: False)
    monkeypatch.setattr(agent_bias, 'is_ordinary', lambda _: False)
    for ours, plain in zip(actual, run(module, x, *grid)):
        assert_near(ours, plain)


@pytest.mark.parametrize(('size', 'few'), [(12, True), (24, False)])
def test_inference_of_many_tokens_is_left_to_the_fused_kernel(size, few, calls):
    module = AgentAttention(4, 2, size, agent_num=4).eval()
    with torch.no_grad():
        module(torch.randn(1, size, size, 4))
    assert bool(calls) is few
    module(torch.randn(1, size, size, 4))
    assert calls


@pytest.mark.parametrize(
    'change',
    [
        lambda module, x: (module.double(), x.double()),
        lambda module, x: (module.bfloat16(), x.bfloat16()),
        lambda module, x: (module, x[:0]),
        lambda module, x: (hooked(module), x),
        lambda module, x: (wrapped(module), x),
        lambda module, x: (dropping(module), x),
        lambda module, x: (torch.compile(module, backend='aot_eager'), x),
        lambda module, x: (torch.autocast('cpu', torch.bfloat16)(module), x),
        lambda module, x: (torch.func.vmap(module), x[None]),
    ],
    ids=['float64', 'bfloat16', 'no image', 'hook', 'another convolution', 'dropout', 'compiled', 'autocast', 'vmap'],
)
def test_everything_else_takes_the_plain_form(change, calls):
    module, x = change(AgentAttention(8, 2, 4, agent_num=4), torch.randn(1, 4, 4, 8))
    module(x)
    assert not calls


def hooked(module):
    module.core.dwc.register_forward_hook(lambda *_: None)
    return module


def wrapped(module):
    module.core.dwc = nn.Sequential(module.core.dwc)
    return module


def dropping(module):
    module.core.attn_drop = 0.5
    return module


@pytest.mark.parametrize('case', ['whole cells', 'cells that overlap', 'prefix', 'windows'])
def test_second_gradients_and_many_at_a_time(case, calls, monkeypatch):
    build, shape, grid = CASES[case]
    module = lively(build())
    x = torch.randn(*shape, module.proj.in_features, requires_grad=True)
    leaves, directions = [x, *module.parameters()], torch.randn(2, *x.shape)

    def derivatives():
        out = module(x, *grid)
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), leaves)
        return *second, *torch.autograd.grad(module(x, *grid), leaves, directions, is_grads_batched=True)

    actual = derivatives()
    assert len(calls) == 2
    monkeypatch.setattr(agent, 'takes', lambda *_: False)
    for ours, plain in zip(actual, derivatives()):
        assert_near(ours, plain)


@pytest.mark.parametrize('case', ['whole cells', 'prefix'])
def test_results_may_be_changed_in_place(case, calls):
    build, shape, grid = CASES[case]
    module = lively(build())
    x = torch.randn(*shape, module.proj.in_features, requires_grad=True)
    x = x if grid else x.flatten(1, 2)
    out = module.core(x, x, x, *(grid or (shape[1:],)))
    out += 1
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    (expected,) = torch.autograd.grad((module.core(x, x, x, *(grid or (shape[1:],))) + 1).square().sum(), x)
    assert_near(gradient, expected)
    assert len(calls) == 2


def test_frozen_parameters_get_no_gradient():
    module = AgentAttention(8, 2, 4, agent_num=4)
    module.core.requires_grad_(False)
    module.core.na_bias.requires_grad_(True)
    module(torch.randn(1, 4, 4, 8)).sum().backward()
    assert [name for name, p in module.core.named_parameters() if p.grad is not None] == ['na_bias']

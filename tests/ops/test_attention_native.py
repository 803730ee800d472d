"""Attention over few keys in C++ against the formula in float64, for every processor that this one can stand in for."""

import pytest
import torch

from ops import HiLoAttention, _attention_native
from ops._attention import attention
from ops._products import written_out
from tests.ops.conftest import assert_near, needs_cpp

pytestmark = needs_cpp


def inputs(B, N, L, S, D):
    return [torch.randn(B, N, length, D, requires_grad=True) for length in (L, S, S)]


def exact(tensors, grad, scale):
    q, k, v = leaves = [x.detach().double().requires_grad_() for x in tensors]
    out = (q * scale @ k.mT).softmax(-1) @ v
    return out, *torch.autograd.grad(out, leaves, grad.double())


SIZES = [
    (2, 3, 50, 49, 32),
    (1, 2, 7, 200, 16),
    (3, 1, 33, 5, 48),
    (1, 2, 64, 256, 64),
    (9, 2, 4, 4, 32),
    (1, 1, 1, 1, 16),
]


@pytest.mark.usefixtures('processor', 'threads')
@pytest.mark.parametrize('size', SIZES)
def test_output_and_gradients(size):
    q, k, v = tensors = inputs(*size)
    assert _attention_native.takes(q, k, v)
    out = attention(q, k, v, scale=0.3)
    grad = torch.randn_like(out)
    expected = exact(tensors, grad, 0.3)
    with torch.inference_mode():
        assert_near(attention(q, k, v, scale=0.3), expected[0])
    for actual, wanted in zip((out, *torch.autograd.grad(out, tensors, grad)), expected):
        assert_near(actual, wanted)


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('factor', [1e-3, 10.0])
def test_scores_may_be_of_any_size(factor):
    tensors = [(x.detach() * factor).requires_grad_() for x in inputs(2, 2, 40, 30, 16)]
    out = attention(*tensors)
    grad = torch.randn_like(out)
    for actual, wanted in zip((out, *torch.autograd.grad(out, tensors, grad)), exact(tensors, grad, 0.25)):
        assert_near(actual, wanted)


@pytest.mark.usefixtures('processor')
def test_nan_is_not_hidden():
    q, k, v = (x.detach() for x in inputs(1, 2, 10, 20, 16))
    k[0, 1, 3, 4] = float('nan')
    found = attention(q, k, v).isnan()
    assert found[0, 1].all()
    assert not found[0, 0].any()


@pytest.mark.usefixtures('processor')
def test_any_order_in_memory():
    tensors = [torch.randn(2, 16, n, 3).permute(0, 3, 2, 1).requires_grad_() for n in (12, 9, 9)]
    out = attention(*tensors)
    grad = torch.randn(2, 16, 12, 3).permute(0, 3, 2, 1)
    for actual, wanted in zip((out, *torch.autograd.grad(out, tensors, grad)), exact(tensors, grad, 0.25)):
        assert_near(actual, wanted)


def test_second_gradients_and_many_at_a_time():
    tensors, directions = inputs(2, 2, 12, 9, 16), torch.randn(2, 2, 2, 12, 16)

    def derivatives(run):
        first = torch.autograd.grad(run().square().sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), tensors)
        return *second, *torch.autograd.grad(run(), tensors, directions, is_grads_batched=True)

    plain = derivatives(lambda: written_out(0.25, None, *tensors))
    for actual, wanted in zip(derivatives(lambda: attention(*tensors)), plain):
        assert_near(actual, wanted)


def test_results_may_be_changed_in_place():
    tensors = inputs(2, 2, 12, 12, 16)
    out = attention(*tensors)
    out += tensors[2]
    (found,) = torch.autograd.grad(out.square().sum(), tensors[2])
    plain = (written_out(0.25, None, *tensors) + tensors[2]).square().sum()
    assert_near(found, torch.autograd.grad(plain, tensors[2])[0])


@pytest.mark.parametrize(
    ('change', 'taken'),
    [
        (lambda q, k, v: (q, k, v), True),
        (lambda q, k, v: (q.double(), k.double(), v.double()), False),
        (lambda q, k, v: (q.bfloat16(), k.bfloat16(), v.bfloat16()), False),
        (lambda q, k, v: (q[..., :12], k[..., :12], v[..., :12]), False),
        (lambda q, k, v: (q, k.repeat(1, 1, 30, 1), v.repeat(1, 1, 30, 1)), False),
        (lambda q, k, v: (q[:0], k[:0], v[:0]), False),
        (lambda q, k, v: (q[0], k[0], v[0]), False),
    ],
)
def test_what_is_taken(change, taken):
    q, k, v = change(*inputs(2, 2, 12, 9, 16))
    assert _attention_native.takes(q, k, v) is taken
    assert attention(q, k, v).shape == q.shape


def test_compiled_calls_are_left_to_torch():
    tensors = inputs(2, 2, 12, 9, 16)
    compiled = torch.compile(attention, fullgraph=True, backend='aot_eager', dynamic=True)
    assert_near(compiled(*tensors), attention(*tensors))


def test_windows_of_hilo(monkeypatch):
    module = HiLoAttention(64, 4, alpha=0.5)
    x = torch.randn(2, 7, 9, 64, requires_grad=True)
    leaves = [x, *module.parameters()]
    names, run = [], _attention_native.run
    monkeypatch.setattr(_attention_native, 'run', lambda name, *rest: (names.append(name), run(name, *rest)))
    found = torch.autograd.grad(module(x).square().sum(), leaves)
    assert names == ['attention_forward', 'attention_forward', 'attention_backward', 'attention_backward']
    monkeypatch.setattr(_attention_native, 'takes', lambda *_: False)
    for actual, wanted in zip(found, torch.autograd.grad(module(x).square().sum(), leaves)):
        assert_near(actual, wanted)

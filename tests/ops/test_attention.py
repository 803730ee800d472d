"""Attention without a mask in bfloat16 on CPU, whose gradient is not torch's, against float64."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ops import _attention
from ops._attention import attention
from tests.ops.conftest import assert_near

pytestmark = pytest.mark.skipif(not _attention.AVAILABLE, reason='torch has no fused attention on CPU')


@pytest.fixture
def taken(monkeypatch):
    """The numbers of keys of the calls whose gradients are found in float32."""
    keys, gains = [], _attention.gains

    def noted(q, k, v):
        if found := gains(q, k, v):
            keys.append(k.shape[2])
        return found

    monkeypatch.setattr(_attention, 'gains', noted)
    return keys


def made(*shape, heads_last=True, dtype=torch.bfloat16):
    """(B, N, L, D) as projections give it, heads beside channels."""
    batch, heads, length, width = shape
    x = torch.randn((batch, length, heads, width) if heads_last else shape, dtype=dtype)
    return (x.transpose(1, 2) if heads_last else x).requires_grad_()


def derived(call, tensors, grad):
    out = call(*tensors)
    return out, torch.autograd.grad(out, tensors, grad.to(out.dtype))


@pytest.mark.parametrize('heads_last', [True, False])
@pytest.mark.parametrize('scale', [None, 0.3])
@pytest.mark.parametrize(('queries', 'keys'), [(7, 7), (40, 3), (1, 128)])
def test_output_and_gradients(taken, queries, keys, scale, heads_last):
    tensors = [made(2, 3, length, 16, heads_last=heads_last) for length in (queries, keys, keys)]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    grad = torch.randn(2, 3, queries, 16)
    out, found = derived(lambda *x: attention(*x, scale=scale), tensors, grad)
    expected, wanted = derived(lambda *x: scaled_dot_product_attention(*x, scale=scale), exact, grad)
    assert_near(out, expected, torch.bfloat16)
    for actual, right in zip(found, wanted):
        assert actual.dtype is torch.bfloat16
        assert_near(actual, right, torch.bfloat16)
    assert taken == [keys]


def test_channels_that_do_not_lie_side_by_side(taken):
    tensors = [torch.randn(2, 3, 16, 7, dtype=torch.bfloat16).mT.requires_grad_() for _ in range(3)]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    grad = torch.randn(2, 3, 7, 16)
    out, found = derived(attention, tensors, grad)
    expected, wanted = derived(scaled_dot_product_attention, exact, grad)
    assert taken == [7]
    for actual, right in zip((out, *found), (expected, *wanted)):
        assert_near(actual, right, torch.bfloat16)


def test_what_is_kept_stays_in_bfloat16(taken):
    kept = {}

    def pack(x):
        kept[x.data_ptr()] = x.nbytes
        return x

    def bytes_kept(call):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            call(*tensors)
        return sum(kept.values())

    tensors = [made(2, 3, 20, 16) for _ in range(3)]
    assert bytes_kept(attention) == bytes_kept(scaled_dot_product_attention)
    assert taken


@pytest.mark.parametrize(
    'name', ['float32', 'no gradient', 'many keys', 'dropout', 'written out', 'autocast', 'traced']
)
def test_leaves_the_others_to_torch(taken, name):
    length = 129 if name == 'many keys' else 8
    tensors = [made(1, 2, length, 8, dtype=torch.float32 if name == 'float32' else torch.bfloat16) for _ in range(3)]
    options = {'dropout_p': 0.5} if name == 'dropout' else {}
    call = torch.jit.trace(attention, tensors) if name == 'traced' else attention
    results = []
    for each in (call, scaled_dot_product_attention):
        torch.manual_seed(0)
        with (
            torch.set_grad_enabled(name != 'no gradient'),
            torch.autocast('cpu', enabled=name == 'autocast'),
            sdpa_kernel([SDPBackend.MATH] if name == 'written out' else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]),
        ):
            results.append(each(*tensors, **options))
    assert torch.equal(*results)
    assert not taken


def test_second_derivatives(taken):
    tensors = [made(1, 2, 6, 8) for _ in range(3)]
    exact = [x.detach().double().requires_grad_() for x in tensors]

    def twice(call, leaves):
        first = torch.autograd.grad(call(*leaves).pow(2).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), leaves)

    def written_out(q, k, v):
        return (q @ k.mT * 8**-0.5).softmax(-1) @ v

    for actual, wanted in zip(twice(attention, tensors), twice(written_out, exact)):
        assert_near(actual, wanted, torch.bfloat16)
    assert taken


def test_gradients_of_many_at_a_time(taken):
    tensors = [made(1, 2, 6, 8) for _ in range(3)]
    out = attention(*tensors)
    grads = torch.randn(3, *out.shape).bfloat16()
    batched = torch.autograd.grad(out, tensors, grads, is_grads_batched=True, retain_graph=True)
    for i, each in enumerate(grads):
        for one, found in zip(torch.autograd.grad(out, tensors, each, retain_graph=True), batched):
            assert_near(found[i], one, torch.bfloat16)
    assert taken


def test_transforms(taken):
    x, tangent = torch.randn(2, 1, 2, 6, 8).bfloat16()

    def loss(x):
        return attention(x, x, x).square().sum()

    functional, leaf = grad(loss)(x), x.clone().requires_grad_()
    assert not taken
    assert_near(functional, torch.autograd.grad(loss(leaf), leaf)[0], torch.bfloat16)
    assert taken.pop()
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        dual = forward_ad.make_dual(leaf, tangent)
        assert forward_ad.unpack_dual(attention(dual, dual, dual)).tangent.isfinite().all()
    assert not taken

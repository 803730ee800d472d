"""Global attention against the formula written out."""

import torch

from ops import GlobalAttention
from tests.ops.conftest import assert_near


def written_out(module, x):
    """softmax(q k / sqrt(D)) v, one query at a time."""
    batch, height, width, dim = x.shape
    heads = module.num_heads
    q, k, v = module.qkv(x).reshape(batch, height * width, 3, heads, dim // heads).unbind(2)
    out = torch.empty_like(q)
    for b in range(batch):
        for i in range(height * width):
            for n in range(heads):
                weights = (k[b, :, n] @ q[b, i, n] * (dim // heads) ** -0.5).softmax(0)
                out[b, i, n] = weights @ v[b, :, n]
    return module.proj(out.reshape(x.shape))


def test_is_the_formula_with_its_gradients():
    module = GlobalAttention(12, 3, dtype=torch.float64)
    x = torch.randn(2, 3, 4, 12, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    actual, expected = module(x), written_out(module, x)
    assert_near(actual, expected, torch.float64)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, torch.float64)


def test_options():
    module = GlobalAttention(12, 3, qkv_bias=False, qk_scale=0.5, attn_drop=0.5)
    assert module.qkv.bias is None
    assert module.scale == 0.5
    x = torch.randn(1, 3, 3, 12)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))

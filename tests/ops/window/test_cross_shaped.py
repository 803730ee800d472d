"""Cross-shaped windows against the formula, one query at a time."""

import pytest
import torch
from torch.nn import functional as F

from ops import BranchedAttention, CrossShapedWindowAttention, StripeAttention
from tests.ops.conftest import assert_near


def starts(length, side):
    """First positions of the stripes of an axis: what is missing of the last one lies half before the map."""
    return range(-(-length % side // 2), length, side)


def written_out(branch, q, k, v):
    """Softmax over the positions of a stripe, in the map or not, and a 3 x 3 convolution that does not leave it."""
    (_, height, width, dim), heads = q.shape, branch.num_heads
    h, w = (side or length for side, length in zip(branch.stripe, (height, width)))
    out = torch.zeros_like(q)
    for top in starts(height, h):
        for left in starts(width, w):
            inside = [(i, j) for i in range(top, top + h) for j in range(left, left + w)]
            inside = [(i, j) for i, j in inside if 0 <= i < height and 0 <= j < width]
            for y, x in inside:
                for n in range(heads):
                    part = slice(n * dim // heads, (n + 1) * dim // heads)
                    scores = [(q[:, y, x, part] * k[:, i, j, part]).sum(-1) * branch.scale for i, j in inside]
                    weights = torch.stack([s.exp() for s in scores], dim=1)
                    # Each zero key has the score 0 and the value 0.
                    weights = weights / (weights.sum(1, keepdim=True) + h * w - len(inside))
                    values = torch.stack([v[:, i, j, part] for i, j in inside], dim=1)
                    out[:, y, x, part] += (weights[..., None] * values).sum(1)
                out[:, y, x] += branch.dwc.bias
                for i, j in inside:
                    if abs(i - y) <= 1 and abs(j - x) <= 1:
                        out[:, y, x] += branch.dwc.weight[:, 0, i - y + 1, j - x + 1] * v[:, i, j]
    return out


@pytest.mark.parametrize(
    ('size', 'split_size'), [((4, 6), 2), ((5, 7), 2), ((2, 3), 4), ((5, 4), 3), ((3, 5), 1), ((3, 4), None)]
)
def test_is_the_formula_with_its_gradients(size, split_size):
    module = CrossShapedWindowAttention(8, 4, split_size, dtype=torch.float64)
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    halves = [t.chunk(len(module.branches), -1) for t in module.qkv(x).chunk(3, -1)]
    outputs = [written_out(branch, *share) for branch, share in zip(module.branches, zip(*halves))]
    actual, expected = module(x), module.proj(torch.cat(outputs, -1))
    assert_near(actual, expected, torch.float64)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, torch.float64)


def test_the_first_branch_sees_columns_and_the_second_rows():
    module = CrossShapedWindowAttention(8, 2, split_size=2)
    x = torch.zeros(1, 6, 6, 8)
    spot = x.clone()
    spot[0, 0, 0] = 1
    shares = [module.qkv(map_).unflatten(-1, (3, 2, 4)).unbind(-2) for map_ in (x, spot)]
    for branch, plain, changed in zip(module.branches, *shares):
        differs = (branch(*plain.unbind(-2)) - branch(*changed.unbind(-2))).abs().amax((0, 3)) > 1e-6
        rows, columns = differs.any(1).sum(), differs.any(0).sum()
        assert (rows, columns) == ((6, 2) if branch is module.branches[0] else (2, 6))


def test_stripes_as_wide_as_the_map_are_global_attention_with_a_convolution():
    branch = StripeAttention(8, 2, (None, None), qk_scale=0.3)
    q, k, v = torch.randn(3, 2, 5, 3, 8)
    heads = [t.flatten(1, 2).unflatten(-1, (2, 4)).transpose(1, 2) for t in (q, k, v)]
    expected = F.scaled_dot_product_attention(*heads, scale=0.3).transpose(1, 2).reshape(q.shape)
    expected = expected + branch.dwc(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert_near(branch(q, k, v), expected)


def test_options():
    module = CrossShapedWindowAttention(12, 2, 3, qkv_bias=False, qk_scale=0.5, attn_drop=0.5, proj_drop=0.5)
    assert module.qkv.bias is None
    assert [branch.scale for branch in module.branches] == [0.5, 0.5]
    x = torch.randn(1, 3, 6, 12)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))
    assert 'stripe=(None, 3)' in repr(module)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((10, 4), 'dim 10 is not a multiple of num_heads 4'),
        ((9, 3), 'num_heads 3 must be even'),
        ((8, 2, 0), 'split_size 0 must be above 0'),
    ],
)
def test_bad_values_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CrossShapedWindowAttention(*arguments)


def test_branches_share_the_channels_equally():
    branches = [StripeAttention(4, 1, (None, 1)) for _ in range(3)]
    assert BranchedAttention(12, branches)(torch.randn(1, 2, 3, 12)).shape == (1, 2, 3, 12)
    with pytest.raises(ValueError, match='dim 10 cannot be shared equally by 3 branches'):
        BranchedAttention(10, branches)

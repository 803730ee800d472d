"""HiLo attention against its definition, head by head and query by query, padding included."""

import pytest
import torch

from ops import HiLoAttention
from tests.ops.conftest import assert_near


def look(queries, keys, values, scale):
    """softmax(q k) v of one head, (L, D) each, one query at a time."""
    return torch.stack([((keys @ q * scale).softmax(0)[:, None] * values).sum(0) for q in queries])


def written_out(module, image):
    """The definition on (H, W, C): zero padding, Hi-Fi heads window by window, Lo-Fi heads over the windows' means."""
    (height, width, dim), side = image.shape, module.window_size
    rows, columns = -(-height // side), -(-width // side)
    padded = image.new_zeros(rows * side, columns * side, dim)
    padded[:height, :width] = image
    windows = [
        (slice(i * side, (i + 1) * side), slice(j * side, (j + 1) * side)) for i in range(rows) for j in range(columns)
    ]
    high = image.new_zeros(rows * side, columns * side, 0)
    if module.hi_heads:
        heads = []
        for q, k, v in zip(*(part.chunk(module.hi_heads, -1) for part in module.h_qkv(padded).chunk(3, -1))):
            head = torch.empty_like(q)
            for window in windows:
                qkv = (t[window].flatten(0, 1) for t in (q, k, v))
                head[window] = look(*qkv, module.scale).view(side, side, -1)
            heads.append(head)
        high = module.h_proj(torch.cat(heads, -1))
    low = image.new_zeros(rows * side, columns * side, 0)
    if module.lo_heads:
        means = torch.stack([padded[window].mean((0, 1)) for window in windows])
        queries = module.l_q(padded).flatten(0, 1).chunk(module.lo_heads, -1)
        keys, values = (part.chunk(module.lo_heads, -1) for part in module.l_kv(means).chunk(2, -1))
        heads = [look(*qkv, module.scale) for qkv in zip(queries, keys, values)]
        low = module.l_proj(torch.cat(heads, -1)).view(rows * side, columns * side, -1)
    return torch.cat((high, low), -1)[:height, :width]


@pytest.mark.parametrize(
    ('size', 'window_size', 'alpha', 'options'),
    [
        ((4, 6), 2, 0.5, {}),
        ((5, 3), 2, 0.9, {}),
        ((5, 3), 2, 0.0, {}),
        ((5, 3), 2, 1.0, {}),
        ((2, 7), 4, 0.5, dict(qkv_bias=False, qk_scale=0.3)),
        ((3, 3), 1, 0.5, {}),
        ((7, 7), 3, 0.67, {}),
    ],
)
def test_is_the_definition_with_its_gradients(size, window_size, alpha, options):
    module = HiLoAttention(12, 3, window_size, alpha, dtype=torch.float64, **options)
    x = torch.randn(2, *size, 12, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    actual, expected = module(x), torch.stack([written_out(module, image) for image in x])
    assert_near(actual, expected, torch.float64)
    upstream = torch.randn_like(actual)
    pairs = zip(*(torch.autograd.grad(out, leaves, upstream) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, torch.float64)


@pytest.mark.parametrize(
    ('num_heads', 'window_size', 'alpha', 'heads'),
    [(12, 2, 0.9, (2, 10)), (16, 2, 0.9, (2, 14)), (12, 4, 0.7, (4, 8)), (12, 2, 0, (12, 0)), (12, 2, 1, (0, 12))],
)
def test_share_of_the_heads_is_rounded_down(num_heads, window_size, alpha, heads):
    module = HiLoAttention(8 * num_heads, num_heads, window_size, alpha, device='meta')
    assert (module.hi_heads, module.lo_heads) == heads
    assert {key[0] for key in module.state_dict()} == {kind for kind, count in zip('hl', heads) if count}


def test_windows_of_one_position_are_plain_attention():
    module = HiLoAttention(12, 3, window_size=1, alpha=0.0)
    assert (module.hi_heads, module.lo_heads) == (0, 3)
    assert set(module.state_dict()) == {
        f'l_{name}.{part}' for name in ('q', 'kv', 'proj') for part in ('weight', 'bias')
    }


def test_dropouts_are_for_training():
    x = torch.randn(1, 4, 4, 8)
    for drop in ('attn_drop', 'proj_drop'):
        for alpha in (0.0, 1.0):
            module = HiLoAttention(8, 2, alpha=alpha, **{drop: 0.5})
            assert not torch.equal(module(x), module(x))
            module.eval()
            assert torch.equal(module(x), module(x))


def test_values_that_cannot_be():
    with pytest.raises(ValueError, match='window_size must be at least 1, got 0'):
        HiLoAttention(8, 2, window_size=0)
    with pytest.raises(ValueError, match='from 0 to 1, got 1.5'):
        HiLoAttention(8, 2, alpha=1.5)

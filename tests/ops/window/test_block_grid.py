"""Block and grid attention against the formula written out, one pair of positions at a time."""

import pytest
import torch

from ops import BlockAttention, GridAttention
from ops.window.block_grid import from_grid, to_grid
from tests.ops.conftest import assert_near


def together(module, length, axis):
    """Group and place in it of every position of an axis, by the definition."""
    size = module.partition_size[axis]
    if isinstance(module, BlockAttention):
        return [(i // size, i % size) for i in range(length)]
    groups = -(-length // size)  # a grid of `size` positions that are `groups` apart
    return [(i % groups, i // groups) for i in range(length)]


def written_out(module, x):
    """softmax(q k / sqrt(D) + rpb[key - query]) v over the real positions of each group."""
    batch, height, width, dim = x.shape
    heads = module.num_heads
    q, k, v = module.qkv(x).reshape(batch, height * width, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    rows, columns = together(module, height, 0), together(module, width, 1)
    places = [(rows[i], columns[j]) for i in range(height) for j in range(width)]
    scores = torch.full((heads, height * width, height * width), -torch.inf, dtype=x.dtype)
    for i, ((group_y, y), (group_x, x_)) in enumerate(places):
        for j, ((other_y, other), (other_x, other_)) in enumerate(places):
            if (group_y, group_x) == (other_y, other_x):
                h, w = module.partition_size
                scores[:, i, j] = module.rpb[:, other - y + h - 1, other_ - x_ + w - 1]
    out = (q @ k.mT * (dim // heads) ** -0.5 + scores).softmax(-1) @ v
    return module.proj(out.transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize('cls', [BlockAttention, GridAttention])
@pytest.mark.parametrize('size', [(6, 4), (7, 9), (1, 2), (4, 3), (5, 5)], ids=str)
def test_is_the_formula_with_its_gradients_at_any_size(cls, size):
    module = cls(6, 3, (3, 2), dtype=torch.float64)
    torch.nn.init.normal_(module.rpb)
    x = torch.randn(2, *size, 6, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    actual, expected = module(x), written_out(module, x)
    assert_near(actual, expected, torch.float64)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, torch.float64)


@pytest.mark.parametrize('cls', [BlockAttention, GridAttention])
def test_without_gradients_the_fused_kernel_agrees(cls):
    module, x = cls(8, 2, 4), torch.randn(2, 9, 8, 8)
    expected = module(x)
    with torch.no_grad():
        assert_near(module(x), expected)


def test_a_grid_takes_positions_apart():
    x = torch.arange(24.0).reshape(1, 6, 4, 1)
    groups = to_grid(x, (3, 2))
    assert groups[0, :, 0].tolist() == [0, 2, 8, 10, 16, 18]
    assert torch.equal(from_grid(groups, (3, 2), (6, 4)), x)


@pytest.mark.parametrize('cls', [BlockAttention, GridAttention])
def test_padding_that_is_not_masked_is_attended_to(cls):
    masked, open_ = cls(6, 3, 4), cls(6, 3, 4, mask_padding=False)
    open_.load_state_dict(masked.state_dict())
    x = torch.randn(1, 5, 7, 6)
    padded = torch.nn.functional.pad(x, (0, 0, 0, 1, 0, 3))
    assert_near(open_(x), masked(padded)[:, :5, :7])
    assert not torch.allclose(open_(x), masked(x), atol=1e-4)
    assert_near(open_(padded), masked(padded))


@pytest.mark.parametrize('cls', [BlockAttention, GridAttention])
@pytest.mark.parametrize('size', [(8, 8), (5, 7)], ids=str)
def test_without_a_position_bias(cls, size):
    plain, zero = cls(6, 3, 4, rel_pos_bias=False), cls(6, 3, 4)
    assert plain.rpb is None
    zero.load_state_dict({**plain.state_dict(), 'rpb': torch.zeros_like(zero.rpb)})
    x = torch.randn(2, *size, 6)
    assert_near(plain(x), zero(x))


def test_dropout_of_the_weights_is_for_training():
    module, x = BlockAttention(6, 3, 4, attn_drop=0.5), torch.randn(1, 8, 8, 6)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_parameters_and_errors():
    module = GridAttention(12, 3, (4, 5), qkv_bias=False)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == {'qkv.weight': (36, 12), 'rpb': (3, 7, 9), 'proj.weight': (12, 12), 'proj.bias': (12,)}
    assert 'partition_size=(4, 5)' in repr(module)
    with pytest.raises(ValueError, match='partition_size must be one or two numbers above 0, got 0'):
        BlockAttention(12, 3, 0)

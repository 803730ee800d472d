"""Shifted windows against the formula, one query at a time."""

import pytest
import torch

from ops import ShiftedWindowAttention
from tests.ops.conftest import assert_near


def written_out(module, x):
    """Each query attends to the keys of its window of the rolled map that are its neighbours in the map as well."""
    (batch, height, width, dim), heads = x.shape, module.num_heads
    (h, w), (down, right) = module.window_size, module.shift_size
    rows, columns = -(-height // h) * h, -(-width // w) * w
    padded = x.new_zeros(batch, rows, columns, dim)
    padded[:, :height, :width] = x
    q, k, v = module.qkv(padded).unflatten(-1, (3, heads, dim // heads)).unbind(3)
    table = module.relative_position_bias_table.view(2 * h - 1, 2 * w - 1, heads)
    out = torch.zeros_like(q)

    def window(position, side, step, length):
        """Window, and part of the map, of a position of one axis."""
        rolled = (position - step) % length
        return rolled // side, step > 0 and position < step

    for y in range(height):
        for z in range(width):
            mine = window(y, h, down, rows), window(z, w, right, columns)
            scores, values = [], []
            for i in range(rows):
                for j in range(columns):
                    theirs = window(i, h, down, rows), window(j, w, right, columns)
                    if theirs == mine:
                        offset = (y - down) % rows - (i - down) % rows, (z - right) % columns - (j - right) % columns
                        bias = table[offset[0] + h - 1, offset[1] + w - 1]
                        scores.append((q[:, y, z] * k[:, i, j]).sum(-1) * module.scale + bias)
                        values.append(v[:, i, j])
            weights = torch.stack(scores, 1).softmax(1)[..., None]
            out[:, y, z] = (weights * torch.stack(values, 1)).sum(1)
    return module.proj(out[:, :height, :width].flatten(3))


@pytest.mark.parametrize(
    ('size', 'window_size', 'shift_size'),
    [((4, 6), 2, 0), ((4, 6), 2, 1), ((5, 7), 3, 1), ((2, 3), 4, 2), ((4, 5), (2, 3), (1, 0)), ((3, 3), 3, 1)],
)
def test_is_the_formula_with_its_gradients(size, window_size, shift_size):
    module = ShiftedWindowAttention(8, 2, window_size, shift_size, dtype=torch.float64)
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    actual, expected = module(x), written_out(module, x)
    assert_near(actual, expected, torch.float64)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, torch.float64)


def test_parameters_and_options():
    module = ShiftedWindowAttention(12, 3, (4, 5), (2, 0), qkv_bias=False, qk_scale=0.5, attn_drop=0.5)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == {
        'relative_position_bias_table': (63, 3),
        'qkv.weight': (36, 12),
        'proj.weight': (12, 12),
        'proj.bias': (12,),
    }
    assert module.scale == 0.5
    x = torch.randn(1, 8, 5, 12)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))
    assert 'window_size=(4, 5), shift_size=(2, 0)' in repr(module)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((10, 3), 'dim 10 is not a multiple of num_heads 3'),
        ((8, 2, 0), 'window_size must be one or two numbers above 0, got 0'),
        ((8, 2, 4, 4), r'shift_size 4 must be one or two numbers from 0 to below window_size \(4, 4\)'),
        ((8, 2, 4, -1), 'shift_size -1'),
        ((8, 2, 4, (1, 2, 3)), 'shift_size'),
    ],
)
def test_bad_values_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShiftedWindowAttention(*arguments)

"""Focal modulation against the equations of the paper written out, position by position."""

import math

import pytest
import torch

from ops import FocalModulation
from ops.conv.focal_modulation import resize_kernel, resize_levels
from tests.ops.conftest import assert_near


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def context_at(context, kernel, row, column):
    """The GELU of the kernel laid on one position of (H, W, C), nothing beyond the map."""
    reach = kernel.shape[-1] // 2
    total = torch.zeros(context.shape[-1], dtype=context.dtype)
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            if 0 <= row + i < context.shape[0] and 0 <= column + j < context.shape[1]:
                total = total + kernel[:, 0, reach + i, reach + j] * context[row + i, column + j]
    return gelu(total)


def written_out(module, x):
    """proj(q * h(sum over l of gate_l * context_l)) of one image (H, W, C)."""
    height, width, dim = x.shape
    projected = module.f(x)
    query, context, gates = projected[..., :dim], projected[..., dim : 2 * dim], projected[..., 2 * dim :]
    total = torch.zeros_like(query)
    for level, (conv, _) in enumerate(module.focal_layers):
        rows = [[context_at(context, conv.weight, i, j) for j in range(width)] for i in range(height)]
        context = torch.stack([torch.stack(row) for row in rows])
        total = total + gates[..., level : level + 1] * context
    total = total + gates[..., -1:] * gelu(context.mean((0, 1)))
    if module.normalize_modulator:
        total = total / gates.shape[-1]
    bias = 0 if module.h.bias is None else module.h.bias
    return module.proj(module.ln(query * (total @ module.h.weight[:, :, 0, 0].T + bias)))


@pytest.mark.parametrize(
    'options',
    [
        dict(focal_window=3, focal_level=2),
        dict(focal_window=1, focal_level=3, focal_factor=4, normalize_modulator=True),
        dict(focal_window=7, focal_level=1, bias=False, use_postln_in_modulation=True),
        dict(focal_window=3, focal_level=0),
    ],
    ids=str,
)
def test_is_the_equation_with_its_gradients(options):
    module = FocalModulation(6, **options, dtype=torch.float64)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    actual, expected = module(x), torch.stack([written_out(module, image) for image in x])
    assert_near(actual, expected, torch.float64)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, torch.float64)


def test_parameters():
    module = FocalModulation(8, 3, 2, use_postln_in_modulation=True, device='meta')
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == {
        'f.weight': (19, 8),
        'f.bias': (19,),
        'focal_layers.0.0.weight': (8, 1, 3, 3),
        'focal_layers.1.0.weight': (8, 1, 5, 5),
        'h.weight': (8, 8, 1, 1),
        'h.bias': (8,),
        'ln.weight': (8,),
        'ln.bias': (8,),
        'proj.weight': (8, 8),
        'proj.bias': (8,),
    }
    bare = FocalModulation(8, 3, 2, bias=False, device='meta')
    assert [name for name, _ in bare.named_parameters() if name.endswith('bias')] == ['proj.bias']


@pytest.mark.parametrize('options', [(4, 2), (3, 2, 1), (-1, 1), (3, -1)], ids=str)
def test_kernels_that_do_not_keep_the_size_are_refused(options):
    with pytest.raises(ValueError, match=f'focal_window {options[0]}'):
        FocalModulation(8, *options)


def test_dropout_is_for_training():
    module = FocalModulation(8, 3, 2, proj_drop=0.5)
    x = torch.randn(1, 4, 4, 8)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_a_larger_window_with_zeros_around_the_kernels_computes_the_same():
    small, large = FocalModulation(8, 3, 2), FocalModulation(8, 9, 2)
    wanted = large.state_dict()
    fitted = {
        key: resize_kernel(value, wanted[key].shape) if 'focal_layers' in key else value
        for key, value in small.state_dict().items()
    }
    large.load_state_dict(fitted)
    x = torch.randn(2, 11, 5, 8)
    assert_near(large(x), small(x))
    assert torch.equal(resize_kernel(large.focal_layers[1][0].weight, (8, 1, 5, 5)), small.focal_layers[1][0].weight)


def test_gates_of_other_levels():
    rows = torch.arange(1.0, 8)  # two channels: query 1 2, context 3 4, gates 5 6 and, of the whole map, 7
    assert resize_levels(rows, (9,)).tolist() == [1, 2, 3, 4, 5, 6, 0, 0, 7]
    assert resize_levels(rows, (6,)).tolist() == [1, 2, 3, 4, 5, 7]
    table = resize_levels(rows[:, None, None, None] * torch.ones(2, 1, 1), (8, 2))
    assert table[:, 1].tolist() == [1, 2, 3, 4, 5, 6, 0, 7]

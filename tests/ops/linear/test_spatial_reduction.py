"""Attention to reduced keys and values, one cell at a time."""

import pytest
import torch

from ops import GlobalAttention, SpatialReductionAttention
from tests.ops.conftest import assert_near

F64 = torch.float64


def written_out(module, x):
    """softmax(q k / sqrt(D)) v with one key and value per whole R x R cell."""
    ratio, heads = module.sr_ratio, module.num_heads
    out = torch.empty_like(x)
    for b, image in enumerate(x):
        cells = []
        for i in range(image.shape[0] // ratio):
            for j in range(image.shape[1] // ratio):
                cell = image[i * ratio : (i + 1) * ratio, j * ratio : (j + 1) * ratio]
                mixed = torch.einsum('hwc,dchw->d', cell, module.sr.weight) + module.sr.bias
                cells.append(module.norm(mixed))
        k, v = module.kv(torch.stack(cells)).unflatten(-1, (2, heads, -1)).permute(1, 2, 0, 3)
        q = module.q(image).unflatten(-1, (heads, -1))
        for i in range(image.shape[0]):
            for j in range(image.shape[1]):
                weights = (torch.einsum('nd,nsd->ns', q[i, j], k) * module.scale).softmax(-1)
                out[b, i, j] = module.proj(torch.einsum('ns,nsd->nd', weights, v).flatten())
    return out


@pytest.mark.parametrize('size', [(4, 6), (5, 7)], ids=['fits', 'remainder'])
def test_is_the_equation_with_its_gradients(size):
    module = SpatialReductionAttention(6, 2, sr_ratio=2, dtype=F64)
    x = torch.randn(2, *size, 6, dtype=F64, requires_grad=True)
    leaves = [x, *module.parameters()]
    actual, expected = module(x), written_out(module, x)
    assert_near(actual, expected, F64)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, F64)


def test_without_reduction_it_is_plain_attention_also_of_tokens():
    module, plain = SpatialReductionAttention(8, 2, qkv_bias=False), GlobalAttention(8, 2, qkv_bias=False)
    plain.load_state_dict(
        {
            'qkv.weight': torch.cat([module.q.weight, module.kv.weight]),
            'proj.weight': module.proj.weight,
            'proj.bias': module.proj.bias,
        }
    )
    x = torch.randn(2, 3, 4, 8)
    assert_near(module(x), plain(x))
    assert_near(module(x.flatten(1, 2)), plain(x).flatten(1, 2))


def test_a_map_smaller_than_a_cell_is_padded_to_one():
    module = SpatialReductionAttention(8, 2, sr_ratio=4)
    x = torch.randn(1, 3, 9, 8)
    padded = torch.zeros(1, 4, 9, 8)
    padded[:, :3] = x
    assert_near(module(x), module(padded)[:, :3])


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match='dim 8 is not a multiple of num_heads 3'):
        SpatialReductionAttention(8, 3)
    with pytest.raises(ValueError, match='sr_ratio must be at least 1, got 0'):
        SpatialReductionAttention(8, 2, sr_ratio=0)

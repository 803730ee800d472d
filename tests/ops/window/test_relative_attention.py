"""Dense attention with a relative position bias, against the formula written out."""

import pytest
import torch
from torch.nn import functional as F

from ops import RelativePositionAttention
from tests.ops.conftest import assert_near


def written_out(module, x):
    """softmax(q k / sqrt(D) + rpb[key - query]) v, one pair of positions at a time."""
    batch, height, width, dim = x.shape
    heads, length = module.num_heads, height * width
    q, k, v = module.qkv(x).reshape(batch, length, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    bias = torch.empty(heads, length, length)
    for i in range(length):
        for j in range(length):
            row, column = j // width - i // width + height - 1, j % width - i % width + width - 1
            bias[:, i, j] = module.rpb[:, row, column]
    out = (q @ k.mT * (dim // heads) ** -0.5 + bias).softmax(-1) @ v
    return module.proj(out.transpose(1, 2).reshape(x.shape))


def test_is_the_formula_with_its_gradients():
    module = RelativePositionAttention(12, 3, (4, 5))
    x = torch.randn(2, 4, 5, 12, requires_grad=True)
    leaves = [x, *module.parameters()]
    actual, expected = module(x), written_out(module, x)
    assert_near(actual, expected)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted)


def test_parameters():
    module = RelativePositionAttention(12, 3, (4, 5), qkv_bias=False, device='meta', dtype=torch.float16)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert shapes == {'qkv.weight': (36, 12), 'rpb': (3, 7, 9), 'proj.weight': (12, 12), 'proj.bias': (12,)}
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {('meta', torch.float16)}
    with pytest.raises(ValueError, match='dim 10 is not a multiple of num_heads 3'):
        RelativePositionAttention(10, 3, (4, 4))


def test_other_map_takes_the_resized_table():
    module = RelativePositionAttention(8, 2, (4, 4))
    x = torch.randn(1, 6, 5, 8)
    other = RelativePositionAttention(8, 2, (6, 5))
    state = dict(module.state_dict())
    state['rpb'] = F.interpolate(state['rpb'][None], size=(11, 9), mode='bicubic', align_corners=False)[0]
    other.load_state_dict(state)
    assert_near(module(x), other(x))


@pytest.mark.parametrize('frozen', [False, True])
def test_input_size_can_be_set(frozen):
    module = RelativePositionAttention(8, 2, (4, 4))
    module.rpb.requires_grad_(not frozen)
    x = torch.randn(1, 6, 5, 8)
    before = module(x)
    module.set_input_size((6, 5))
    assert module.rpb.shape == (2, 11, 9)
    assert module.rpb.requires_grad is not frozen
    assert_near(module(x), before)
    assert 'input_size=(6, 5)' in repr(module)


def test_dropout_is_for_training():
    module = RelativePositionAttention(8, 2, (4, 4), attn_drop=0.5)
    x = torch.randn(1, 4, 4, 8)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_scripts_compiles_and_exports():
    torch.compiler.reset()
    module = RelativePositionAttention(8, 2, (4, 4)).eval()
    x = torch.randn(2, 4, 5, 8)
    expected = module(x)
    assert_near(torch.jit.script(module)(x), expected)
    assert_near(torch.compile(module, fullgraph=True, backend='aot_eager')(x), expected)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    assert_near(program.module()(torch.cat([x, x[:1]])), torch.cat([expected, expected[:1]]))

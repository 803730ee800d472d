"""The modules: padding of small maps, parameters, scripting, tracing, compiling, exporting."""

import copy

import pytest
import torch
from torch import fx
from torch.nn import functional as F

from ops import NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D, na2d
from tests.ops.conftest import assert_near

MODULES = {1: NeighborhoodAttention1D, 2: NeighborhoodAttention2D, 3: NeighborhoodAttention3D}


@pytest.mark.parametrize('axes', MODULES)
def test_parameters_are_named_as_the_authors_name_them(axes):
    module = MODULES[axes](8, 2, (5, 3, 3)[:axes])
    table = (2, *(9, 5, 5)[:axes])
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        'qkv.weight': (24, 8),
        'qkv.bias': (24,),
        'rpb': table,
        'proj.weight': (8, 8),
        'proj.bias': (8,),
    }
    assert module(torch.randn(2, *(7, 6, 5)[:axes], 8)).shape == (2, *(7, 6, 5)[:axes], 8)


def test_bias_table_starts_small():
    rpb = NeighborhoodAttention2D(64, 32, 7).rpb
    assert abs(rpb.std().item() - 0.02) < 0.002
    assert rpb.abs().max() < 2


def test_parts_can_be_left_out():
    module = NeighborhoodAttention2D(8, 2, 3, rel_pos_bias=False, qkv_bias=False)
    assert {name for name, _ in module.named_parameters()} == {'qkv.weight', 'proj.weight', 'proj.bias'}
    assert 'rel_pos_bias=False' in repr(module)


@pytest.mark.parametrize('backend', ['reference', 'blocked', None])
def test_module_is_its_projections_around_the_function(backend):
    module = NeighborhoodAttention2D(12, 3, (5, 3), (2, 1), (1, 2), (False, True), qk_scale=0.3, backend=backend)
    x = torch.randn(2, 9, 20, 12)
    q, k, v = module.qkv(x).reshape(2, 9, 20, 3, 3, 4).permute(3, 0, 1, 2, 4, 5)
    out = na2d(q, k, v, (5, 3), (2, 1), (1, 2), (False, True), 0.3, rel_pos_bias=module.rpb, backend='reference')
    assert_near(module(x), module.proj(out.reshape(2, 9, 20, 12)))


@pytest.mark.parametrize('size', [(5, 20), (14, 3), (1, 1), (13, 14)])
def test_small_map_attends_to_padded_tokens(size):
    """Zero tokens fill the map up to 14 x 14 before qkv, so they are attended to, and are cropped again."""
    module = NeighborhoodAttention2D(8, 2, 7, dilation=2)
    x = torch.randn(2, *size, 8)
    full = F.pad(x, (0, 0, 0, max(0, 14 - size[1]), 0, max(0, 14 - size[0])))
    assert_near(module(x), module(full)[:, : size[0], : size[1]])
    assert full.shape != x.shape
    with torch.no_grad():
        before = module(x)
        module.qkv.bias[16:] += 1  # values of the padded tokens, and of all others
    assert_near(module(x), before + module.proj.weight.sum(1))


def test_large_map_is_not_padded():
    module = NeighborhoodAttention2D(8, 2, 3, dilation=2)
    with torch.no_grad():
        out = module(torch.zeros(1, 6, 6, 8))
    assert_near(out, out[:, :1, :1].expand_as(out))


def test_batches_of_none_and_one():
    module = NeighborhoodAttention2D(8, 2, 3)
    x = torch.randn(3, 18, 20, 8, requires_grad=True)
    assert module(x[:0]).shape == (0, 18, 20, 8)
    module(x[:0]).sum().backward()
    assert_near(module(x[:1]), module(x)[:1])


def test_dropout_is_for_training():
    module = NeighborhoodAttention2D(8, 2, 3, attn_drop=0.5, proj_drop=0.0)
    x = torch.randn(1, 6, 6, 8)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_autocast_trains_in_bfloat16():
    module = NeighborhoodAttention2D(8, 2, 3)
    x = torch.randn(2, 8, 8, 8)
    expected = module(x)
    expected.square().sum().backward()
    gradients = [p.grad for p in module.parameters()]
    module.zero_grad()
    with torch.autocast('cpu', torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    assert_near(out, expected, torch.bfloat16)
    out.float().square().sum().backward()
    for p, gradient in zip(module.parameters(), gradients):
        assert p.grad.dtype == torch.float32
        assert_near(p.grad, gradient, torch.bfloat16)


def test_device_and_dtype_are_those_asked_for():
    module = NeighborhoodAttention2D(8, 2, 3, device='meta', dtype=torch.float16)
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {('meta', torch.float16)}
    assert module(torch.zeros(2, 5, 20, 8, device='meta', dtype=torch.float16)).shape == (2, 5, 20, 8)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(dim=9, num_heads=2, kernel_size=3), 'dim 9 is not a multiple of num_heads 2'),
        (dict(dim=8, num_heads=2, kernel_size=3, stride=4), 'stride .4, 4. is larger'),
        (
            dict(dim=8, num_heads=2, kernel_size=3, backend='fast'),
            "no backend 'fast'; choose one of: natten, native, blocked",
        ),
    ],
)
def test_impossible_module_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeighborhoodAttention2D(**arguments)


@pytest.fixture
def module():
    return NeighborhoodAttention2D(8, 2, (5, 3), dilation=(2, 1)).eval()


X = torch.linspace(-2, 2, 2 * 8 * 20 * 8).sin().view(2, 8, 20, 8)


def test_copies_and_pickles(module):
    assert torch.equal(copy.deepcopy(module)(X), module(X))


@pytest.mark.parametrize('axes', MODULES)
@pytest.mark.parametrize('rel_pos_bias', [False, True])
def test_scripts(axes, rel_pos_bias):
    module = MODULES[axes](8, 2, 3, 2, 2, True, rel_pos_bias=rel_pos_bias)
    scripted = torch.jit.script(module)
    for size in ((9, 7, 6), (4, 8, 9)):
        x = torch.randn(2, *size[:axes], 8)
        assert_near(scripted(x), module(x))


def test_compiles_without_graph_break(module):
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager')
    assert_near(compiled(X), module(X))


def test_exports_with_any_batch(module):
    program = torch.export.export(module, (X,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    x = torch.randn(5, 8, 20, 8)
    assert_near(program.module()(x), module(x))


def test_is_a_leaf_of_a_traced_model(module):
    class Leaf(fx.Tracer):
        def is_leaf_module(self, m, name):
            return isinstance(m, NeighborhoodAttention2D) or super().is_leaf_module(m, name)

    model = torch.nn.Sequential(torch.nn.LayerNorm(8), module)
    traced = fx.GraphModule(model, Leaf().trace(model))
    assert torch.equal(traced(X), model(X))

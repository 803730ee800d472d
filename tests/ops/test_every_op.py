"""What holds for every operator of `ops.registry.OPS`, by its name alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.registry import NCHW, OPS, build
from tests.ops.conftest import assert_near

DIM, HEADS = 32, 4
SIZES = [(1, 1), (1, 7), (13, 37), (14, 14)]

UNEVEN = {'gaam'}
"""Operators whose last head takes the channels that remain."""

every_op = pytest.mark.parametrize('name', OPS)


def module_of(name, **options):
    torch.manual_seed(0)
    module = build(name, DIM, HEADS, **options).eval()
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if not parameter.any():  # a zero at the start would hide what stands behind it
                parameter.normal_(std=0.3)
            assert parameter.isfinite().all(), key
    return module


def maps(name, *size, batch=2):
    shape = (batch, DIM, *size) if OPS[name].layout == NCHW else (batch, *size, DIM)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def gradients_of(module, x):
    """Those of all parameters, 0 for what has none, and of the map."""
    leaves = [*module.parameters(), x.clone().requires_grad_()]
    return torch.autograd.grad(module(leaves[-1]).square().sum(), leaves, allow_unused=True, materialize_grads=True)


@every_op
@pytest.mark.parametrize('size', SIZES, ids=lambda size: 'x'.join(map(str, size)))
def test_keeps_the_shape_at_any_size_with_gradients(name, size):
    module, x = module_of(name), maps(name, *size).requires_grad_()
    y = module(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


@every_op
def test_gradient_reaches_every_parameter(name):
    module = module_of(name).train()
    # Three, as over two equal shares a batch norm leaves the bias before it a gradient of exactly 0.
    module(maps(name, 14, 14, batch=3).requires_grad_()).square().sum().backward()
    assert not [key for key, p in module.named_parameters() if p.grad is None or not p.grad.any()]


@every_op
def test_empty_batch(name):
    module, x = module_of(name), maps(name, 14, 14, batch=0).requires_grad_()
    y = module(x)
    assert y.shape == x.shape
    y.sum().backward()


@every_op
@settings(max_examples=8, deadline=None)
@given(size=st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_images_of_a_batch_do_not_see_each_other(name, size):
    module, x = module_of(name), maps(name, *size, batch=3)
    with torch.no_grad():
        assert_near(module(x)[1:2], module(x[1:2]))


@every_op
def test_takes_any_memory_layout(name):
    module, x = module_of(name), maps(name, 9, 14)
    strided = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    with torch.no_grad():
        assert_near(module(strided), module(x))


@every_op
def test_bfloat16_autocast_is_near(name):
    module, x = module_of(name), maps(name, 14, 14)
    exact = module(x)
    with torch.autocast('cpu', torch.bfloat16):
        rough = module(x)
    assert rough.isfinite().all()
    assert_near(rough, exact, torch.bfloat16)


@every_op
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64], ids=str)
def test_made_and_run_in_the_type(name, dtype):
    module = build(name, DIM, HEADS, dtype=dtype).eval()
    x = maps(name, 14, 14).to(dtype)
    assert {p.dtype for p in module.parameters()} <= {dtype}
    assert module(x).dtype == dtype
    meta = build(name, DIM, HEADS, device='meta')
    assert {t.device.type for t in (*meta.parameters(), *meta.buffers())} <= {'meta'}


@every_op
def test_another_default_device_and_type_change_nothing(name):
    module, x = module_of(name), maps(name, 14, 14)
    expected = gradients_of(module, x)
    torch.set_default_device('meta')
    torch.set_default_dtype(torch.float64)
    try:
        for actual, wanted in zip(gradients_of(module, x), expected):
            assert_near(actual, wanted)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


@every_op
@pytest.mark.filterwarnings('ignore:There is a performance drop:UserWarning')  # kernels without a rule are run in turn
def test_serves_torch_func(name):
    module, x = module_of(name), torch.stack([maps(name, 14, 14), maps(name, 14, 14).flip(0)])
    parameters = dict(module.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(module, parameters, (x,)).square().sum()

    ours = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), (None, 0), randomness='error')(parameters, x)
    for i, image in enumerate(x):
        expected = gradients_of(module, image)
        for actual, wanted in zip([*(ours[0][key][i] for key in parameters), ours[1][i]], expected):
            assert_near(actual, wanted)


@every_op
def test_compiles_without_a_graph_break(name):
    torch.compiler.reset()
    module, x = module_of(name), maps(name, 13, 14)
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager')
    assert_near(compiled(x), module(x))
    gradients = []
    for run in (module, compiled):
        module.zero_grad()
        leaf = x.clone().requires_grad_()
        run(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert_near(gradients[1], gradients[0])


@every_op
def test_exports_with_a_free_batch(name):
    module, x = module_of(name), maps(name, 13, 14)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=64)},))
    more = torch.cat([x, x[:1]])
    with torch.no_grad():
        assert_near(program.module()(more), module(more))


@every_op
def test_heads_must_divide_the_channels(name):
    if OPS[name].has_heads and name not in UNEVEN:
        with pytest.raises(ValueError, match=r'\b32\b.*\b5\b|\b5\b.*\b32\b'):
            build(name, DIM, 5)
    else:
        assert build(name, DIM, 5)  # the number of heads does no harm


@every_op
def test_unknown_option_is_refused_with_those_that_exist(name):
    with pytest.raises(TypeError, match=f'{name} has no option windowsize; it has: .*device'):
        build(name, DIM, HEADS, windowsize=3)


def test_unknown_operator_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="'nb'.*na"):
        build('nb', DIM)

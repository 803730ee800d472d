"""Dense layers by oneDNN, against `F.linear`; which calls it takes and which it leaves to torch."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ops import _linear, _onednn
from ops._linear import Linear, act_linear, linear
from tests.ops.conftest import assert_near

pytestmark = pytest.mark.skipif(not _onednn.AVAILABLE, reason='torch has no oneDNN and MKL')

ROWS, WIDE, NARROW = 512, 256, 128


@pytest.fixture
def taken(monkeypatch):
    """The shapes of the products that oneDNN has computed."""
    shapes = []

    def product(x, weight, *rest):
        shapes.append((tuple(x.shape), tuple(weight.shape)))
        return computed(x, weight, *rest)

    computed = _linear.product
    monkeypatch.setattr(_linear, 'product', product)
    return shapes


@pytest.fixture(params=[True, False], ids=['Intel', 'another'])
def intel(request, monkeypatch):
    """Whether the processor is one of Intel's, as far as the layers know."""
    monkeypatch.setattr(_linear, 'is_intel', lambda: request.param)
    return request.param


def tensors(*leading, bias=True, dtype=None):
    """Input, weight and bias of a product that is large enough."""
    leading = leading or (2, ROWS // 2)
    x, weight = torch.randn(*leading, WIDE, dtype=dtype), torch.randn(NARROW, WIDE, dtype=dtype) / 16
    return x, weight, torch.randn(NARROW, dtype=dtype) if bias else None


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('leading', [(ROWS,), (2, ROWS // 2), (2, 16, ROWS // 32)])
def test_is_linear(taken, leading, bias):
    x, weight, offset = tensors(*leading, bias=bias)
    assert_near(linear(x, weight, offset), F.linear(x, weight, offset))
    assert taken == [((*leading, WIDE), (NARROW, WIDE))]


@pytest.mark.parametrize('name', ['permuted', 'expanded', 'every other', 'columns', 'offset'])
def test_takes_any_strides(taken, name):
    x, weight, bias = tensors()
    if name == 'permuted':
        x = torch.randn(WIDE, ROWS, 2).permute(2, 1, 0)
        weight = torch.randn(WIDE, NARROW).t()
    elif name == 'expanded':
        x = torch.randn(ROWS, WIDE).expand(2, ROWS, WIDE)
    elif name == 'every other':
        x = torch.randn(2, ROWS, 2 * WIDE)[..., ::2]
    elif name == 'columns':
        weight = torch.randn(NARROW, WIDE + 5)[:, 5:]
    else:
        weight = torch.randn(3 * NARROW, WIDE).split(NARROW)[1]
    assert_near(linear(x, weight, bias), F.linear(x, weight, bias))
    assert taken


@pytest.mark.parametrize('needed', [n for n in itertools.product([True, False], repeat=3) if any(n)])
def test_gradients(taken, intel, needed):
    leaves = [t.requires_grad_(need) for t, need in zip(tensors(), needed)]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    gradient = torch.randn(2, ROWS // 2, NARROW)
    ours = torch.autograd.grad(linear(*leaves), wanted, gradient)
    assert len(taken) == 1 + (0 if intel else needed[0] + needed[1])
    for actual, expected in zip(ours, torch.autograd.grad(F.linear(*leaves), wanted, gradient)):
        assert_near(actual, expected)


@pytest.mark.parametrize(
    ('rows', 'dtype', 'mkl'), [(512, None, True), (8192, None, False), (512, torch.float64, False)]
)
def test_gradients_of_inputs(taken, intel, rows, dtype, mkl):
    gradient, weight = torch.randn(2, rows // 2, 256, dtype=dtype), torch.randn(256, 128, dtype=dtype)
    assert_near(_linear.input_gradient(gradient, weight), gradient @ weight)
    assert len(taken) == (dtype is None and not (mkl and intel))


@pytest.mark.parametrize(
    ('rows', 'wide', 'narrow', 'by_onednn'),
    [
        (512, 256, 128, True),
        (512, 128, 256, False),
        (8192, 64, 32, False),
        (8194, 64, 32, False),
        (8192, 32, 64, False),
    ],
)
def test_gradients_of_weights(taken, intel, rows, wide, narrow, by_onednn):
    x, gradient = torch.randn(rows, wide), torch.randn(rows, 2 * narrow)[:, :narrow]
    actual = _linear.weight_gradient(gradient, x)
    assert_near(actual, gradient.t() @ x)
    assert actual.is_contiguous()
    assert len(taken) == (by_onednn and not intel)


def test_gradients_of_weights_round_once_in_bfloat16():
    x, gradient = torch.randn(8192, 16).bfloat16(), torch.randn(8192, 16).bfloat16()
    assert torch.equal(_linear.weight_gradient(gradient, x), gradient.t() @ x)


def test_gradients_of_gradients(taken, intel):
    leaves = [t.requires_grad_() for t in tensors()]
    gradient = torch.randn(2, ROWS // 2, NARROW, requires_grad=True)

    def second(function):
        first = torch.autograd.grad(function(*leaves), leaves, gradient, create_graph=True)
        return torch.autograd.grad(sum(t.square().mean() for t in first), [*leaves[:2], gradient])

    for actual, expected in zip(second(linear), second(F.linear)):
        assert_near(actual, expected)
    assert len(taken) > (0 if intel else 2)


@pytest.mark.parametrize('needed', list(itertools.product([True, False], repeat=3)))
def test_keeps_no_more_than_linear(needed):
    def kept(function):
        leaves = [t.requires_grad_(need) for t, need in zip(tensors(), needed)]
        sizes = {}
        with saved_tensors_hooks(lambda t: sizes.update({t.data_ptr(): t.nbytes}), lambda t: t):
            function(*leaves)
        return sum(sizes.values())

    assert kept(linear) <= kept(F.linear)


class Subclass(torch.Tensor):
    """A tensor that must see the functions that are called."""


class Seen(TorchFunctionMode):
    """A mode that looks at every function."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def under(context):
    """`linear` within a context."""

    def call(x, weight, bias):
        with context():
            return linear(x, weight, bias)

    return call


def with_tangent(x, weight, bias):
    """`linear` in forward mode."""
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(linear(forward_ad.make_dual(x, x), weight, bias)).primal


WATCHED = {
    'autocast': under(lambda: torch.autocast('cpu', torch.bfloat16)),
    'dispatch mode': under(lambda: FlopCounterMode(display=False)),
    'function mode': under(Seen),
    'oneDNN switched off': under(lambda: torch.backends.mkldnn.flags(enabled=False)),
    'vmap': lambda x, weight, bias: torch.vmap(lambda one: linear(one, weight, bias))(x),
    'forward mode': with_tangent,
    'subclass': lambda x, weight, bias: linear(x.as_subclass(Subclass), weight, bias),
    'float64': lambda x, weight, bias: linear(x.double(), weight.double(), bias.double()),
    'bfloat16': lambda x, weight, bias: linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()),
    'few rows': lambda x, weight, bias: linear(x[:, :4], weight, bias),
    'no rows': lambda x, weight, bias: linear(x[:0], weight, bias),
    'one vector': lambda x, weight, bias: linear(x[0, 0], weight, bias),
}


@pytest.mark.parametrize('name', WATCHED)
def test_leaves_the_others_to_torch(taken, name):
    x, weight, bias = tensors(4, ROWS)
    out = WATCHED[name](x, weight, bias)
    assert not taken
    assert torch.isfinite(out).all()


def test_another_width_is_torchs_error():
    x, weight, _ = tensors()
    with pytest.raises(RuntimeError, match='shapes cannot be multiplied'):
        linear(x[..., 1:], weight)


def test_gradients_of_many_outputs_at_once(taken):
    leaves = [t.requires_grad_() for t in tensors()]
    gradients = torch.randn(3, 2, ROWS // 2, NARROW)
    ours, wanted = (
        torch.autograd.grad(f(*leaves), leaves, gradients, is_grads_batched=True) for f in (linear, F.linear)
    )
    for actual, expected in zip(ours, wanted):
        assert_near(actual, expected)


def test_gradients_of_a_gelu_and_a_layer(taken):
    layer, act = Linear(WIDE, NARROW), nn.GELU()
    leaves = [torch.randn(ROWS, WIDE, requires_grad=True), *layer.parameters()]
    directions = torch.randn(3, ROWS, NARROW)

    def derivatives(run):
        first = torch.autograd.grad(run(leaves[0]).square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), leaves)
        once = torch.autograd.grad(run(leaves[0]).square().sum(), leaves)
        return *once, *second, *torch.autograd.grad(run(leaves[0]), leaves, directions, is_grads_batched=True)

    ours = derivatives(lambda x: act_linear(act, layer, x))
    assert taken
    for actual, wanted in zip(ours, derivatives(lambda x: F.linear(F.gelu(x), layer.weight, layer.bias))):
        assert_near(actual, wanted)


def test_results_may_be_changed_in_place(taken):
    layer, x = Linear(WIDE, NARROW), torch.randn(2, ROWS // 2, WIDE, requires_grad=True)
    for run in (layer, lambda x: act_linear(nn.GELU(), layer, x)):
        out = run(x)
        out += x[..., :NARROW]
        (gradient,) = torch.autograd.grad(out.sum(), x)
        (expected,) = torch.autograd.grad((run(x) + x[..., :NARROW]).sum(), x)
        assert_near(gradient, expected)
    assert taken


def test_is_a_linear_layer():
    torch.manual_seed(0)
    layer = Linear(WIDE, NARROW)
    torch.manual_seed(0)
    plain = nn.Linear(WIDE, NARROW)
    assert isinstance(layer, nn.Linear)
    assert repr(layer) == repr(plain)
    x = torch.randn(ROWS, WIDE)
    for other in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        plain.load_state_dict(other.state_dict())
        assert_near(other(x), plain(x))


@pytest.mark.filterwarnings('ignore:.*torch.jit.*:FutureWarning', 'ignore:.*torch.jit.*:DeprecationWarning')
@pytest.mark.parametrize('name', ['compile', 'export', 'fx', 'script', 'trace'])
def test_graphs_hold_the_plain_product(taken, name):
    layer, x = Linear(WIDE, NARROW).eval(), torch.randn(2, ROWS, WIDE)
    graph = {
        'compile': lambda: torch.compile(layer, backend='aot_eager', fullgraph=True),
        'export': lambda: torch.export.export(layer, (x,)).module(),
        'fx': lambda: torch.fx.symbolic_trace(layer),
        'script': lambda: torch.jit.script(layer),
        'trace': lambda: torch.jit.trace(layer, x, check_trace=False),
    }[name]()
    actual = graph(x)
    assert not taken
    assert_near(actual, layer(x))
    assert taken

"""Layer norms, of sums too, and sums of columns in C++ against float64, as built for every kind of processor."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ops import _native, _norm, _rows
from ops._norm import LayerNorm, add_norm
from tests.ops.conftest import assert_near, needs_cpp

pytestmark = needs_cpp


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    monkeypatch.setattr(_norm, 'LEAST_NUMBERS', 0)
    monkeypatch.setattr(_rows, 'MANY_ROWS', 0)


@pytest.fixture
def calls(monkeypatch):
    """Names of what is called in C++."""
    made = []

    def counted(name, *arguments):
        made.append(name)
        return _native.call(name, *arguments)

    monkeypatch.setattr(_rows, 'call', counted)
    return made


def make_norm(channels, **options):
    norm = LayerNorm(channels, **options)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, mean=1.0)
    return norm


def make_factors(images, ndim):
    return torch.tensor([2.0, 0.0, 0.5])[:images].view(-1, *[1] * (ndim - 1))


def plain(norm, x, branch=None, factors=None):
    x = x if branch is None else x + branch * (1.0 if factors is None else factors)
    return x, F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def with_gradients(run, norm, tensors, factors):
    """Sum, norm, and the gradients of all inputs."""
    results = run(norm, *tensors, *factors)
    given = [torch.linspace(-1, 2, x.numel(), dtype=x.dtype).sin().view(x.shape) for x in results]
    return *results, *torch.autograd.grad(results, [*tensors, *norm.parameters()], given)


SHAPES = [(1, 1, 16), (3, 5, 7, 48), (2, 9, 64), (3, 2, 2, 80), (2, 3, 3, 192), (1, 70, 528)]


@pytest.mark.usefixtures('processor', 'threads')
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('form', ['alone', 'sum', 'dropped'])
def test_equals_float64_with_all_gradients(shape, form, calls):
    norm = make_norm(shape[-1], bias=form != 'sum', eps=1e-3)
    tensors = [(torch.randn(shape) * 3 + 1).requires_grad_() for _ in range(1 if form == 'alone' else 2)]
    factors = [make_factors(shape[0], len(shape))] if form == 'dropped' else []
    actual = with_gradients(add_norm, norm, tensors, factors)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    expected = with_gradients(plain, norm.double(), exact, [x.double() for x in factors])
    for ours, wanted in zip(actual, expected, strict=True):
        assert_near(ours, wanted)
    assert calls == ['norm_forward', 'norm_backward']


@pytest.mark.usefixtures('processor')
def test_inference_and_the_module_alone(calls):
    norm, x, branch = make_norm(32), torch.randn(2, 3, 32), torch.randn(2, 3, 32)
    with torch.no_grad():
        for ours, wanted in zip(
            add_norm(norm, x, branch, make_factors(2, 3)), plain(norm, x, branch, make_factors(2, 3))
        ):
            assert_near(ours, wanted)
        assert_near(norm(x), plain(norm, x)[1])
    assert norm(x).grad_fn is not None
    assert calls == ['norm_forward'] * 3


@pytest.mark.parametrize('wanted', [(0,), (1,), (2,), (3,), (0, 3)])
@pytest.mark.parametrize('used', ['sum', 'norm', 'both'])
@pytest.mark.parametrize('dropped', [False, True])
def test_only_what_is_asked_for(wanted, used, dropped):
    norm, x, branch = make_norm(32), torch.randn(2, 3, 32), torch.randn(2, 3, 32)
    inputs = [x, branch, norm.weight, norm.bias]
    for i, tensor in enumerate(inputs):
        tensor.requires_grad_(i in wanted)
    factors = [make_factors(2, 3)] if dropped else []

    def gradients(run):
        results = run(norm, x, branch, *factors)
        taken = {'sum': results[:1], 'norm': results[1:], 'both': results}[used]
        total = sum((part * part).sum() for part in taken)
        asked = [inputs[i] for i in wanted]
        return torch.autograd.grad(total, asked, allow_unused=True) if total.requires_grad else [None] * len(asked)

    for ours, expected in zip(gradients(add_norm), gradients(plain), strict=True):
        if expected is None:
            assert ours is None or not ours.any()
        else:
            assert_near(ours, expected)


def test_gradients_may_lie_anywhere(calls):
    norm, tensors = make_norm(16), [torch.randn(2, 3, 5, 16, requires_grad=True) for _ in range(2)]
    inputs = [*tensors, *norm.parameters()]
    for strange in (
        torch.randn(2, 16, 3, 5).permute(0, 2, 3, 1),
        torch.randn(2, 3, 5, 16, dtype=torch.complex64).conj().imag,
        torch.randn(1, 1, 1, 1).expand(2, 3, 5, 16),
    ):
        found = torch.autograd.grad(add_norm(norm, *tensors), inputs, [strange, strange])
        for ours, wanted in zip(found, torch.autograd.grad(plain(norm, *tensors), inputs, [strange, strange])):
            assert_near(ours, wanted)
    assert calls.count('norm_backward') == 3


def test_second_gradients_and_many_at_a_time():
    norm = make_norm(16)
    tensors = [torch.randn(2, 3, 16, requires_grad=True) for _ in range(2)]
    inputs, factors = [*tensors, norm.weight, norm.bias], make_factors(2, 3)
    directions = torch.randn(4, 2, 3, 16)

    def derivatives(run):
        results = run(norm, *tensors, factors)
        first = torch.autograd.grad(results, inputs, [x.detach().cos() for x in results], create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), inputs, allow_unused=True)
        many = torch.autograd.grad(run(norm, *tensors, factors)[1], inputs, directions, is_grads_batched=True)
        return *first, *(x for x in second if x is not None), *many

    for ours, expected in zip(derivatives(add_norm), derivatives(plain), strict=True):
        assert_near(ours, expected)


def test_gradcheck_of_what_goes_on():
    """The sum that goes on is the input itself: it may be used, and its gradient is counted once."""
    norm, x = make_norm(16), torch.randn(2, 3, 16, requires_grad=True)
    carried, y = add_norm(norm, x)
    (found,) = torch.autograd.grad((carried * 3).sum() + y.square().sum(), x)
    other = plain(norm, x)
    (expected,) = torch.autograd.grad((other[0] * 3).sum() + other[1].square().sum(), x)
    assert_near(found, expected)


class Doubled(LayerNorm):
    def forward(self, x):
        return 2 * super().forward(x)


def test_other_norms_are_called(calls):
    x, branch = torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    hooked, seen = make_norm(16), []
    hooked.register_forward_hook(lambda *_: seen.append('hook'))
    for norm in (nn.LayerNorm(16), nn.Identity(), Doubled(16), hooked, nn.LayerNorm((3, 16))):
        carried, y = add_norm(norm, x, branch)
        assert torch.equal(carried, x + branch)
        assert torch.equal(y, norm(x + branch))
    assert seen == ['hook'] * 2
    assert len(calls) == 4  # of the norms that a module calls itself


@pytest.mark.parametrize(
    'case', ['channels', 'gaps', 'weights with gaps', 'double', 'no weight', 'two axes', 'few numbers', 'no library']
)
def test_leaves_the_others_to_torch(case, calls, monkeypatch):
    norm, x = make_norm(16), torch.randn(2, 3, 16)
    if case == 'channels':
        norm, x = make_norm(17), torch.randn(2, 3, 17)
    elif case == 'gaps':
        x = torch.randn(2, 3, 32)[..., ::2]
    elif case == 'weights with gaps':
        norm.weight = nn.Parameter(torch.randn(32)[::2])
    elif case == 'double':
        norm, x = norm.double(), x.double()
    elif case == 'no weight':
        norm = LayerNorm(16, elementwise_affine=False)
    elif case == 'two axes':
        norm = LayerNorm((3, 16))
    elif case == 'few numbers':
        monkeypatch.setattr(_norm, 'LEAST_NUMBERS', 1 << 20)
    else:
        monkeypatch.setattr(_native, 'kernels', lambda: None)
    assert torch.equal(norm(x), plain(norm, x)[1])
    assert not calls
    assert_near(add_norm(norm, x, x)[1], plain(norm, x, x)[1])


def test_compiled_traced_and_autocast_calls_are_left_to_torch(calls):
    norm, x = make_norm(16), torch.randn(2, 3, 16)
    with torch.no_grad():
        expected = plain(norm, x)[1]
        assert_near(torch.compile(norm, backend='eager', fullgraph=True)(x), expected)
        assert_near(torch.vmap(norm)(x), expected)
        assert_near(torch.jit.script(norm)(x), expected)
        with torch.autocast('cpu', torch.bfloat16):
            assert norm(x).dtype is F.layer_norm(x, (16,), norm.weight, norm.bias).dtype
    assert not calls


def test_shapes_that_do_not_fit_are_errors():
    with pytest.raises(RuntimeError, match='normalized_shape'):
        make_norm(16)(torch.randn(2, 3, 32))
    assert add_norm(make_norm(16), torch.randn(2, 3, 16), torch.randn(2, 1, 16))[0].shape == (2, 3, 16)


@pytest.mark.usefixtures('processor')
def test_nan_stays_in_its_row(calls):
    x = torch.randn(2, 3, 32)
    x[0, 1, 5] = float('nan')
    with torch.no_grad():
        rows = make_norm(32)(x).isnan().sum(-1)
    assert rows.tolist() == [[0, 32, 0], [0, 0, 0]]
    assert calls


@pytest.mark.usefixtures('processor', 'threads')
@pytest.mark.parametrize('shape', [(1, 16), (3, 48), (64, 128), (65, 144), (700, 272)])
def test_sums_of_columns(shape, calls):
    x = torch.randn(shape) + 1
    with torch.no_grad():
        assert_near(_rows.column_sums(x), x.double().sum(0))
    assert calls == ['column_sums']


@pytest.mark.parametrize('x', [torch.randn(9, 20), torch.randn(16, 9).T, torch.randn(9, 16).double()])
def test_other_sums_are_those_of_torch(x, calls):
    with torch.no_grad():
        assert torch.equal(_rows.column_sums(x), x.sum(0))
    assert _rows.column_sums(torch.randn(9, 16, requires_grad=True)).grad_fn is not None
    assert not calls

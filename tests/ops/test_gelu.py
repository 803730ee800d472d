"""The GELU and its gradient in one pass, against float64."""

import math

import pytest
import torch

from ops import _gelu, _native
from tests.ops.conftest import LIKE


@pytest.fixture(params=['AVX512', 'AVX2', None])
def library(request, monkeypatch):
    if request.param is not None and (request.param not in LIKE or _native.load(request.param) is None):
        pytest.skip(f'the C++ was not built for {request.param}, or this processor is another')
    monkeypatch.setattr(_native, 'kernels', lambda: request.param and _native.load(request.param))


@pytest.mark.usefixtures('library')
@pytest.mark.parametrize('form', ['none', 'tanh'])
@pytest.mark.parametrize('shape', [(1 << 16,), (3, 7, 16), (5, 3)])
def test_result_and_gradient(shape, form):
    x = torch.cat([torch.linspace(-15, 15, 1000), torch.randn(1 << 16)])[: math.prod(shape)].view(shape)
    given = torch.randn(shape)
    exact = x.double().requires_grad_()
    expected = torch.nn.functional.gelu(exact, approximate=form)
    (slope,) = torch.autograd.grad(expected, exact, given.double())
    gradient = given.clone()
    found = _gelu.gelu_backward(x, gradient, form)
    assert (found - expected).abs().max() < 2e-6
    assert (gradient - slope).abs().max() < 2e-6


@pytest.mark.usefixtures('library')
def test_gaps_and_other_types():
    for x in (torch.randn(4, 8, 32).mT, torch.randn(4, 32, dtype=torch.bfloat16)):
        gradient = torch.ones_like(x)
        found = _gelu.gelu_backward(x, gradient, 'none')
        exact = x.double().requires_grad_()
        expected = torch.nn.functional.gelu(exact)
        tolerance = 2e-6 if x.dtype is torch.float32 else 2e-2
        assert (found - expected).abs().max() < tolerance
        assert (gradient - torch.autograd.grad(expected.sum(), exact)[0]).abs().max() < tolerance


def test_gradients_stay_finite():
    x = torch.tensor([float('inf'), -float('inf'), 1e30, -1e30, 100.0, -100.0, 0.0, -0.0] * 2)
    gradient = torch.ones_like(x)
    found = _gelu.gelu_backward(x, gradient, 'none')
    finite = x.isfinite()
    assert torch.equal(found[finite], x[finite].clamp(min=0))
    assert torch.equal(gradient[finite], torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5, 0.5] * 2))


def test_nan_stays_nan():
    x = torch.full((16,), float('nan'))
    gradient = torch.ones_like(x)
    assert _gelu.gelu_backward(x, gradient, 'none').isnan().all()
    assert gradient.isnan().all()

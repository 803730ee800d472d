"""What the tests of operators share: uninitialised memory is NaN, and how near is equal."""

import pytest
import torch

from ops import _native

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 6e-3, torch.bfloat16: 5e-2}
"""Largest difference, as part of the largest value, by dtype: a few roundings of the sums."""


@pytest.fixture(autouse=True)
def _uninitialised_memory_is_nan():
    """In deterministic mode torch fills `empty` with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_near(actual, expected, dtype=None):
    """Equal up to the rounding of the dtype; shapes exactly."""
    assert actual.shape == expected.shape
    if expected.numel():
        actual, expected = actual.detach().double(), expected.detach().double()
        limit = TOLERANCE[dtype or torch.float32] * max(1.0, expected.abs().max().item())
        assert (actual - expected).abs().max().item() <= limit


LIKE = {'AVX512': ('AVX512', 'AVX2'), 'AVX2': ('AVX2',)}.get(torch.backends.cpu.get_cpu_capability(), ())
"""Processors that this one can stand in for."""

needs_cpp = pytest.mark.skipif(
    not any(_native.load(processor) for processor in LIKE), reason='the C++ was not built for this processor'
)


@pytest.fixture(params=['AVX512', 'AVX2'])
def processor(request, monkeypatch):
    """The kernels in C++ as built for each processor."""
    if request.param not in LIKE:
        pytest.skip(f'this processor does not have {request.param}')
    monkeypatch.setattr(_native, 'kernels', lambda: _native.load(request.param))


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    """Threads that share the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)

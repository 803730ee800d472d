"""What the tests of operators share: uninitialised memory is NaN, and how near is equal."""

import pytest
import torch

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

"""Windows and back."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from ops._layout import from_windows, missing, pad_to_multiple, pair, spatial_mean, to_windows
from tests.ops.conftest import assert_near


def test_windows_are_read_row_by_row_and_put_back():
    x = torch.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    windows = to_windows(x, (2, 3))
    assert windows.shape == (2 * 4, 6, 1)
    assert windows[1].flatten().tolist() == [3, 4, 5, 9, 10, 11]
    assert torch.equal(from_windows(windows, (2, 3), (4, 6)), x)


def test_empty_batch():
    x = torch.empty(0, 4, 6, 3)
    assert from_windows(to_windows(x, (2, 2)), (2, 2), (4, 6)).shape == x.shape


def test_padding_is_zero_at_the_bottom_and_right():
    x = torch.ones(1, 3, 4, 2)
    padded = pad_to_multiple(x, (2, 3))
    assert padded.shape == (1, 4, 6, 2)
    assert torch.equal(padded[:, :3, :4], x)
    assert padded.sum() == x.sum()
    assert pad_to_multiple(x, (3, 2)) is x


def test_padding_compiled_once_serves_maps_that_fit_and_maps_that_do_not():
    counter = CompileCounter()
    compiled = torch.compile(pad_to_multiple, backend=counter, fullgraph=True, dynamic=True)
    for size in ((4, 6), (5, 7), (4, 7), (7, 6)):
        x = torch.randn(2, *size, 3)
        assert torch.equal(compiled(x, (2, 3)), pad_to_multiple(x, (2, 3)))
    assert counter.frame_count == 1


def test_what_is_missing_to_a_multiple():
    assert [missing(length, 3) for length in range(1, 8)] == [2, 1, 0, 2, 1, 0, 2]


def test_one_or_two_numbers():
    assert pair(3, 'window') == (3, 3)
    assert pair([2, 5], 'window') == (2, 5)
    for wrong in (0, (1, 2, 3), (4, -1)):
        with pytest.raises(ValueError, match='window must be one or two numbers above 0'):
            pair(wrong, 'window')


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_spatial_mean(dtype):
    x = torch.randn(2, 3, 300, 300).add(100).to(dtype).requires_grad_()  # the sum of float16 would overflow
    mean = spatial_mean(x)
    assert mean.dtype == dtype
    assert_near(mean, x.double().mean((2, 3)), dtype)
    assert_near(torch.autograd.grad(mean.sum(), x)[0], torch.full_like(x, 1 / 300**2))


def test_gradient_of_a_spatial_mean_is_not_written_out():
    x, strides = torch.randn(2, 3, 5, 7, requires_grad=True).clone(), []
    x.register_hook(lambda gradient: strides.append(gradient.stride()[2:]))
    spatial_mean(x).sum().backward()
    assert strides == [(0, 0)]

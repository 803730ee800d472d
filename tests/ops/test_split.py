"""Parts of the channels, and gradients that lie side by side."""

import pytest
import torch

from ops._split import empty_alike, split, whole


class Doubled(torch.autograd.Function):
    """Twice the sum of the parts; the gradients lie as `place` says."""

    @staticmethod
    def forward(ctx, place, *parts):
        ctx.place, ctx.parts = place, parts
        return sum(2 * part for part in parts)

    @staticmethod
    def backward(ctx, grad):
        grads = ctx.place(*ctx.parts)
        for out in grads:
            out.copy_(2 * grad)
        return None, *grads


@pytest.mark.parametrize(
    'place', [empty_alike, lambda *parts: [torch.empty(part.shape) for part in parts]], ids=['together', 'apart']
)
def test_gradients_are_those_of_chunk(place):
    x = torch.randn(2, 3, 12, requires_grad=True)
    out = Doubled.apply(place, *split(x, 3))
    torch.testing.assert_close(out, 2 * sum(x.chunk(3, -1)))
    out.backward(grad := torch.randn(2, 3, 4))
    torch.testing.assert_close(x.grad, 2 * grad.repeat(1, 1, 3))


def test_parts_side_by_side_are_the_whole():
    x = torch.randn(2, 3, 12)
    together = whole(x.chunk(3, -1))
    assert together.data_ptr() == x.data_ptr()
    assert torch.equal(together, x)
    assert whole(x.chunk(3, -1)[::-1]) is None
    assert whole(x.split([2, 4, 6], -1)) is None
    assert whole(tuple(part.clone() for part in x.chunk(3, -1))) is None


def test_memory_lies_as_the_tensors_do():
    x, y = torch.randn(2, 3, 4), torch.randn(2, 3, 8)
    first, *others = empty_alike(x, *y.chunk(2, -1))
    assert first.is_contiguous()
    assert whole(tuple(others)).shape == y.shape


def test_unused_parts_and_second_gradients():
    x = torch.randn(2, 6, requires_grad=True)
    first, _ = split(x, 2)
    (gradient,) = torch.autograd.grad(first.pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    torch.testing.assert_close(second, torch.cat([6 * x[:, :3], torch.zeros(2, 3)], -1).detach())

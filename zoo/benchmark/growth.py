"""How cost grows with the image: the exponent e of seconds = c * pixels ** e."""

from collections.abc import Sequence
from math import log


def exponent(pixels: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of the line through the logarithms, by least squares: 1 is linear in pixels, 2 quadratic.

    Raises:
        ValueError: fewer than two different sizes, or a number that is not positive.
    """
    if len(pixels) != len(costs) or len(set(pixels)) < 2:
        raise ValueError(f'an exponent needs two sizes or more, each with its cost, got {len(set(pixels))}')
    if min(*pixels, *costs) <= 0:
        raise ValueError('sizes and costs must be positive')
    xs, ys = [log(x) for x in pixels], [log(y) for y in costs]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys)) / sum((x - x_mean) ** 2 for x in xs)

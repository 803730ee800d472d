"""Values that the constructors of several gates check in the same way."""


def reduced(dim: int, reduction: int) -> int:
    """Hidden channels `dim // reduction` of a gate.

    Raises:
        ValueError: none would be left.
    """
    if reduction < 1 or dim < reduction:
        raise ValueError(f'reduction {reduction} leaves none of {dim} channels: give a value from 1 to dim')
    return dim // reduction


def half(kernel_size: int) -> int:
    """Padding on either side that keeps the length under a kernel of odd length.

    Raises:
        ValueError: the kernel has no middle.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f'kernel_size {kernel_size} has no middle: give an odd positive number')
    return kernel_size // 2

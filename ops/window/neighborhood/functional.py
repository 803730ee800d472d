"""na1d, na2d, na3d: neighborhood attention on queries, keys and values, with an explicit choice of backend.

Letters: B batch, L / H, W / T, H, W positions per axis, N heads, D channels per head, K kernel size.
"""

from collections.abc import Sequence

from torch import Tensor

from ops._backends import Backend, choose
from ops.window.neighborhood import blocked, flex, native, natten, reference, triton
from ops.window.neighborhood.geometry import Window

BACKENDS = (  # flex compiles for every shape, which is for the caller to want
    Backend('natten', natten.attend, natten.why_not),
    Backend('native', native.attend, native.why_not, native.is_worth),
    Backend('blocked', blocked.attend, blocked.why_not),
    Backend('flex', flex.attend, flex.why_not),
    Backend('reference', reference.attend, reference.why_not),
    Backend('triton', triton.attend, triton.why_not),  # by name, until it has been measured: then before `blocked`
)


def per_axis(name: str, value: int | bool | Sequence[int] | Sequence[bool], axes: int) -> tuple[int, ...]:
    """One entry per axis from a scalar or a sequence of `axes` entries."""
    entries = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(entries) != axes:
        raise ValueError(f'{name} has {len(entries)} entries, {value}: give one number or {axes}, one per axis')
    return entries


def make_window(
    axes: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
) -> Window:
    """Window of `axes` axes from scalars or one entry per axis; ValueError where the entries contradict each other."""
    window = Window(
        per_axis('kernel_size', kernel_size, axes),
        per_axis('stride', stride, axes),
        per_axis('dilation', dilation, axes),
        tuple(bool(causal) for causal in per_axis('is_causal', is_causal, axes)),
    )
    for name in ('kernel_size', 'stride', 'dilation'):
        if min(getattr(window, name)) < 1:
            raise ValueError(f'{name} is {getattr(window, name)}: every entry must be at least 1')
    if any(step > kernel for step, kernel in zip(window.stride, window.kernel_size)):
        raise ValueError(
            f'stride {window.stride} is larger than kernel_size {window.kernel_size}: '
            'some keys would be seen by no query, lower the stride'
        )
    return window


def check_tensors(query: Tensor, key: Tensor, value: Tensor, window: Window, bias: Tensor | None) -> None:
    """ValueError unless the tensors fit each other and the window fits the map."""
    axes = len(window.kernel_size)
    if query.dim() != axes + 3:
        layout = f'(B, {axes} sizes, N, D)' if axes > 1 else '(B, L, N, D)'
        raise ValueError(f'query has shape {tuple(query.shape)}: {axes} axes take {axes + 3} dimensions {layout}')
    for name, tensor in (('key', key), ('value', value)):
        if tensor.shape != query.shape:
            raise ValueError(f'{name} has shape {tuple(tensor.shape)}, query {tuple(query.shape)}: they must be equal')
        if tensor.dtype != query.dtype or tensor.device != query.device:
            raise ValueError(
                f'{name} is {tensor.dtype} on {tensor.device}, query is {query.dtype} on {query.device}: '
                'they must be equal'
            )
    if not query.is_floating_point():
        raise ValueError(f'query is {query.dtype}: give a floating point dtype')
    size = query.shape[1:-2]
    for i, length in enumerate(size):
        if window.kernel_size[i] * window.dilation[i] > length:
            raise ValueError(
                f'kernel_size {window.kernel_size} * dilation {window.dilation} is larger than the map {tuple(size)}: '
                'pad the map (the NeighborhoodAttention modules do) or lower one of them'
            )
    if bias is not None:
        table = (query.shape[-2], *(2 * kernel - 1 for kernel in window.kernel_size))
        if tuple(bias.shape) != table:
            raise ValueError(f'rel_pos_bias has shape {tuple(bias.shape)}: (N, 2 * K - 1 per axis) is {table}')
        if bias.device != query.device or not bias.is_floating_point():
            raise ValueError(
                f'rel_pos_bias is {bias.dtype} on {bias.device}: give a floating point one on {query.device}'
            )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: Window,
    scale: float | None,
    bias: Tensor | None,
    dropout_p: float,
    backend: str | None,
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D) over a checked window, by the wanted or the first able backend."""
    check_tensors(query, key, value, window, bias)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    call = (query, key, value, window, scale, bias, dropout_p)
    return choose(BACKENDS, backend, *call)(*call)


def na1d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | None = None,
    *,
    rel_pos_bias: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """(B, L, N, D) x 3 -> (B, L, N, D). Work: 2 * B * L * K * N * D multiply-adds.

    The arguments are those of `na2d`, with one axis.
    """
    window = make_window(1, kernel_size, stride, dilation, is_causal)
    return attend(query, key, value, window, scale, rel_pos_bias, 0.0, backend)


def na2d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | None = None,
    *,
    rel_pos_bias: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """(B, H, W, N, D) x 3 -> (B, H, W, N, D). Work: 2 * B * H * W * K * K * N * D multiply-adds.

    `kernel_size * dilation` may not exceed the map and `stride` not `kernel_size`, along any axis: ValueError.

    Args:
        query: queries.
        key: keys.
        value: values.
        kernel_size: side K of the window in positions, one number or one per axis (so are the next three).
        stride: positions that share one window; 1 gives each its own.
        dilation: step between the keys of one window, in positions.
        is_causal: keep only keys at or before the query.
        scale: factor of the scores; D ** -0.5 when None.
        rel_pos_bias: (N, 2 * K - 1, 2 * K - 1), added to the scaled scores at index
            `(key - query) / dilation + K - 1` along each axis.
        backend: name in `BACKENDS`; the first that can run when None, ValueError when the named one cannot.
    """
    window = make_window(2, kernel_size, stride, dilation, is_causal)
    return attend(query, key, value, window, scale, rel_pos_bias, 0.0, backend)


def na3d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    is_causal: bool | Sequence[bool] = False,
    scale: float | None = None,
    *,
    rel_pos_bias: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """(B, T, H, W, N, D) x 3 -> (B, T, H, W, N, D). Work: 2 * B * T * H * W * K**3 * N * D multiply-adds.

    The arguments are those of `na2d`, with three axes.
    """
    window = make_window(3, kernel_size, stride, dilation, is_causal)
    return attend(query, key, value, window, scale, rel_pos_bias, 0.0, backend)

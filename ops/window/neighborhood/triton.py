"""Neighborhood attention by fused Triton kernels (triton_kernels.py), along one or two axes, with bias and dilation.

Queries, keys and values are read where they lie. Two custom ops of torch call the kernels, so that `torch.compile` and
`torch.export` see one call, and Triton is imported when it runs. With TRITON_INTERPRET=1 in the environment from the
start the kernels run on the CPU, in Triton's interpreter: for checks.

Letters: B batch, H W height and width in positions, N heads, D channels per head, K kernel size.
"""

import os
from functools import lru_cache
from importlib.util import find_spec
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops.window.neighborhood.geometry import Window

INSTALLED = find_spec('triton') is not None
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
TILE, CHUNK = 64, 32  # slots of a program, and of what it meets at a time
MAX_KERNEL, MAX_BYTES = 32, 256  # keys along an axis; channels of a head
MAX_HEADS = 65535  # of all images together: the longest third axis of a CUDA grid


class Tiles(NamedTuple):
    """Tiles of `height` x `width` slots, walked in chunks of `rows` x `columns`."""

    height: int
    width: int
    rows: int
    columns: int
    across: int  # chunks that span the keys of a tile from left to right
    number: tuple[int, int]  # of tiles in a group, down and across


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


@lru_cache(maxsize=256)
def cut(slots: tuple[int, int], kernel_size: tuple[int, int], sums_pairs: bool) -> Tiles:
    """The tiles that compute the fewest scores in a group of `slots`.

    With `sums_pairs` only those whose pairs are summed, along either axis, by a product of 16 terms at least and not
    many more.
    """
    choices = []
    for width in (4, 8) if sums_pairs else (4, 8, 16, 32, 64):
        height = TILE // width
        spans = [min(side + kernel - 1, n) for side, kernel, n in zip((height, width), kernel_size, slots)]
        columns = min(max(4, power_of_two(spans[1])), CHUNK)
        rows, across = CHUNK // columns, -(-spans[1] // columns)
        number = (-(-slots[0] // height), -(-slots[1] // width))
        if height * rows >= 16 or not sums_pairs:
            chunks = prod(number) * -(-spans[0] // rows) * across
            choices.append((chunks, Tiles(height, width, rows, columns, across, number)))
    return min(choices)[1]


class Call(NamedTuple):
    """What all kernels of a call share."""

    shape: torch.Size
    kernel_size: list[int]
    dilation: list[int]
    scale: float

    def tiles(self, sums_pairs: bool = False) -> Tiles:
        """How the largest group is cut."""
        height, width = (-(-length // step) for length, step in zip(self.shape[1:3], self.dilation))
        return cut((height, width), (self.kernel_size[0], self.kernel_size[1]), sums_pairs)

    def programs(self, tiles: Tiles) -> tuple[int, int, int]:
        """One for each tile of a group, of a head of an image; in reverse order."""
        down, across = (number * step for number, step in zip(tiles.number, self.dilation))
        return across, down, self.shape[0] * self.shape[3]

    def launch(
        self, kernel: Any, tiles: Tiles, tensors: list[Tensor | None], strided: list[Tensor], **more: int
    ) -> None:
        """Run `kernel` on `tensors`; it is told the strides of those that are `strided`."""
        import triton.language as tl

        _, height, width, heads, channels = self.shape
        dtype, padded = strided[0].dtype, max(16, power_of_two(channels))
        with torch.cuda.device_of(strided[0]):
            kernel[self.programs(tiles)](
                *tensors,
                *(x.stride() for x in strided),
                (heads * height * width, width, 1, height * width),
                (height, width),
                tuple(self.dilation),
                heads,
                self.scale,
                D=channels,
                DP=padded,
                KH=self.kernel_size[0],
                KW=self.kernel_size[1],
                TH=tiles.height,
                TW=tiles.width,
                ROWS=tiles.rows,
                WIDTH=tiles.columns,
                # the interpreter cannot multiply bfloat16
                TYPE=tl.float32 if INTERPRETED else getattr(tl, str(dtype).removeprefix('torch.')),
                PRECISION='ieee' if torch.get_float32_matmul_precision() == 'highest' else 'tf32',
                num_warps=4 if padded * dtype.itemsize <= 128 else 8,
                num_stages=2,
                enable_fp_fusion=True,
                **more,
            )


def channels_adjacent(x: Tensor) -> Tensor:
    """The tensor itself, unless its channels lie apart as those of an expanded gradient do."""
    return x if x.stride(-1) == 1 else x.contiguous()


@torch.library.custom_op('attnzoo::neighborhood_attention', mutates_args=())
def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: list[int],
    dilation: list[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(B, H, W, N, D) x 3 -> (B, H, W, N, D), and log2 of the sums of the softmax, (B, N, H, W) in float32."""
    from ops.window.neighborhood.triton_kernels import forward_kernel

    call = Call(query.shape, kernel_size, dilation, scale)
    tiles = call.tiles()
    inputs = [channels_adjacent(x) for x in (query, key, value)]
    table = None if bias is None else bias.float().contiguous() / scale
    out, log_sums = empty_outputs(query)
    call.launch(forward_kernel, tiles, [*inputs, table, out, log_sums], [*inputs, out], COLUMNS=tiles.across)
    return out, log_sums


@forward.register_fake
def empty_outputs(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """What `forward` fills."""
    batch, height, width, heads, _channels = query.shape
    return query.new_empty(query.shape), query.new_empty((batch, heads, height, width), dtype=torch.float32)


@torch.library.custom_op('attnzoo::neighborhood_attention_backward', mutates_args=())
def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    out: Tensor,
    log_sums: Tensor,
    grad: Tensor,
    kernel_size: list[int],
    dilation: list[int],
    scale: float,
    of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and bias; the last in float32, and empty unless it is wanted."""
    from ops.window.neighborhood.triton_kernels import key_kernel, query_kernel

    call = Call(query.shape, kernel_size, dilation, scale)
    tiles = call.tiles(sums_pairs=of_bias)
    inputs = [channels_adjacent(x) for x in (query, key, value)]
    grad = channels_adjacent(grad)
    table = None if bias is None else bias.float().contiguous() / scale
    flipped = None if table is None else table.flip(1, 2)
    deltas, grads = torch.empty_like(log_sums), [torch.empty_like(out) for _ in range(3)]
    height, width = (2 * kernel - 1 for kernel in kernel_size)
    tables = None
    if of_bias:
        programs = (*call.programs(tiles)[::-1], height, width)
        tables = torch.empty(programs, dtype=torch.float32, device=query.device)
    call.launch(
        query_kernel,
        tiles,
        [*inputs, table, out, grad, log_sums, deltas, grads[0], tables],
        [*inputs, out, grad],
        COLUMNS=tiles.across,
        EH=max(16, power_of_two(height)),
        EW=max(16, power_of_two(width)),
    )
    call.launch(
        key_kernel,
        call.tiles(),
        [*inputs, flipped, grad, log_sums, deltas, grads[1], grads[2]],
        [*inputs, out, grad],
    )
    if tables is None:
        return grads[0], grads[1], grads[2], log_sums.new_empty(0)
    return grads[0], grads[1], grads[2], tables.unflatten(0, (-1, query.shape[3])).sum((0, 2, 3))


@backward.register_fake
def empty_gradients(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `backward` returns, unfilled."""
    of_bias = bias is not None and inputs[-1]
    grad_bias = query.new_empty(bias.shape if bias is not None and of_bias else 0, dtype=torch.float32)
    return query.new_empty(query.shape), query.new_empty(query.shape), query.new_empty(query.shape), grad_bias


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep what the backward pass takes: inputs, output and sums."""
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.options = inputs[4:]
    ctx.set_materialize_grads(False)


def differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs of `forward`."""
    bias, of_bias = ctx.saved_tensors[3], ctx.needs_input_grad[3]
    *grads, grad_bias = backward(*ctx.saved_tensors, grad, *ctx.options, of_bias)
    return *grads, grad_bias.to(bias.dtype) if of_bias else None, None, None, None


forward.register_autograd(differentiate, setup_context=save)


def attend(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D). A line is a map of one row."""
    kernel_size, dilation = list(window.kernel_size), list(window.dilation)
    if len(kernel_size) == 2:
        return forward(query, key, value, bias, kernel_size, dilation, scale)[0]
    q, k, v = (x.unsqueeze(1) for x in (query, key, value))
    bias = None if bias is None else bias.unsqueeze(1)
    return forward(q, k, v, bias, [1, *kernel_size], [1, *dilation], scale)[0].squeeze(1)


def why_not(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> str | None:
    """Return why the kernels cannot serve the call."""
    if not INSTALLED:
        return 'triton is not installed'
    if query.device.type != 'cuda' and not INTERPRETED:
        return f'its kernels run on CUDA only, the query is on {query.device}'
    if query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f'it takes float32, float16 and bfloat16, not {query.dtype}'
    if query.shape[-1] * query.dtype.itemsize > MAX_BYTES:
        most = MAX_BYTES // query.dtype.itemsize
        return f'it takes at most {most} channels per head of {query.dtype}, not {query.shape[-1]}'
    if len(window.kernel_size) > 2:
        return 'it takes one or two axes, not three'
    if max(window.stride) > 1 or any(window.is_causal):
        return 'it takes neither strides nor causal axes'
    if max(window.kernel_size) > MAX_KERNEL:
        return f'it takes at most {MAX_KERNEL} keys along an axis, not {max(window.kernel_size)}'
    if query.shape[0] * query.shape[-2] > MAX_HEADS:
        return f'it takes at most {MAX_HEADS} heads of all images together, not {query.shape[0] * query.shape[-2]}'
    if query.numel() == 0:
        return 'it takes no empty batch'
    if scale <= 0.0:
        return f'it takes a positive scale, not {scale}'
    return 'it has no dropout of the weights' if dropout_p > 0.0 else None

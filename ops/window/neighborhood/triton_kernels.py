"""Triton kernels of neighborhood attention: forward, gradients of the queries and the bias, of the keys and the values.

Layout: (B, H, W, N, D) with any strides but that of the channels, which is 1. A dilation group is a map of its own, by
offset and strides. A program has one tile of TH x TW slots of one group, of one head and image, and walks the rectangle
of slots that its queries see, or that see its keys, in chunks of ROWS x WIDTH. Pairs that do not see each other are
hidden from the softmax.

Passes: `forward_kernel` is an online softmax and keeps the logarithm of its sums, from which the other two compute the
weights again: `query_kernel` for the gradients of the queries and the bias, `key_kernel` for those of keys and values.
No program adds to what another one writes, so gradients are the same in every run.

Memory: B * N * H * W floats from the forward pass, as many for the backward pass, and there a table of the bias for
each program of `query_kernel`, to be summed.

Letters: D channels per head, DP the power of two that holds them, KH and KW kernel size; y and x count the slots of a
group, of which there are SY x SX.

The passes are those of FlashAttention-2: https://arxiv.org/abs/2307.08691
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def locate(size, dilation, heads, TH: tl.constexpr, TW: tl.constexpr):
    """What the program has: (image, head, group of two axes, SY, SX), and the first slot of its tile."""
    group_x, x = tl.program_id(0) % dilation[1], tl.program_id(0) // dilation[1] * TW
    group_y, y = tl.program_id(1) % dilation[0], tl.program_id(1) // dilation[0] * TH
    slots_y, slots_x = tl.cdiv(size[0] - group_y, dilation[0]), tl.cdiv(size[1] - group_x, dilation[1])
    return (tl.program_id(2) // heads, tl.program_id(2) % heads, group_y, group_x, slots_y, slots_x), y, x


@triton.jit
def view(tensor, stride, place, dilation):
    """The slots of `place` in a tensor: pointer to the first, strides, SY, SX."""
    image, head, group_y, group_x, slots_y, slots_x = place
    first = image.to(tl.int64) * stride[0] + head.to(tl.int64) * stride[3]
    first += group_y.to(tl.int64) * stride[1] + group_x.to(tl.int64) * stride[2]
    return tensor + first, stride[1] * dilation[0], stride[2] * dilation[1], slots_y, slots_x


@triton.jit
def pointers(slots, y, x, dy, dx):
    """Pointers to the slots (y + dy, x + dx) of a `view`, and which of them exist; y and x are numbers."""
    offset = dy.to(tl.int64) * slots[1] + dx.to(tl.int64) * slots[2]  # the same for all chunks
    first = slots[0] + (y.to(tl.int64) * slots[1] + x.to(tl.int64) * slots[2])
    return first + offset, (y + dy < slots[3]) & (x + dx < slots[4])


@triton.jit
def load(slots, y, x, dy, dx, D: tl.constexpr, DP: tl.constexpr):
    """(slots, DP), zero where there is nothing."""
    first, exists = pointers(slots, y, x, dy, dx)
    channel = tl.arange(0, DP)[None, :]
    return tl.load(first[:, None] + channel, exists[:, None] & (channel < D), other=0.0)


@triton.jit
def store(slots, y, x, dy, dx, values, D: tl.constexpr, DP: tl.constexpr):
    """Write (slots, DP)."""
    first, exists = pointers(slots, y, x, dy, dx)
    channel = tl.arange(0, DP)[None, :]
    values = values.to(slots[0].dtype.element_ty)
    tl.store(first[:, None] + channel, values, exists[:, None] & (channel < D))


@triton.jit
def window_start(slot, slots, K: tl.constexpr):
    """First slot of the window of each slot, `slot_windows` for stride 1; out of reach for those behind the group."""
    start = tl.minimum(tl.maximum(slot - K // 2, 0), slots - K)
    return tl.where(slot < slots, start, 1 << 30)


@triton.jit
def keys_of(first, T: tl.constexpr, slots, K: tl.constexpr):
    """First and end slot of the keys that a tile of T queries sees."""
    last = tl.minimum(first + T, slots) - 1
    return window_start(tl.minimum(first, last), slots, K), window_start(last, slots, K) + K


@triton.jit
def queries_of(first, T: tl.constexpr, slots, K: tl.constexpr):
    """First and end slot of the queries that see a tile of T keys: more at a border, where windows slide inwards."""
    last = tl.minimum(first + T, slots) - 1
    begin = tl.where(first < K, 0, first - (K - 1) + K // 2)
    return begin, tl.where(last >= slots - K, slots, last + K // 2 + 1)


@triton.jit
def sees(qy, qx, ky, kx, place, KH: tl.constexpr, KW: tl.constexpr):
    """Whether the query of a pair sees the key."""
    y, x = ky - window_start(qy, place[4], KH), kx - window_start(qx, place[5], KW)
    return (y >= 0) & (y < KH) & (x >= 0) & (x < KW)


@triton.jit
def addends(seen, from_y, from_x, to_y, to_x, place, table, KH: tl.constexpr, KW: tl.constexpr):
    """What is added to the products of pairs: the entry from one slot to the other, -inf for a pair not seen."""
    if table is None:
        values = tl.where(seen, 0.0, float('-inf'))
    else:
        entry = ((to_y + KH - 1) * (2 * KW - 1) + to_x + KW - 1) - (from_y * (2 * KW - 1) + from_x)
        table += place[1] * ((2 * KH - 1) * (2 * KW - 1))
        values = tl.load(table + entry, seen, other=float('-inf'))
    return values


@triton.jit
def one_hot(offset, Q: tl.constexpr, K: tl.constexpr, ENTRIES: tl.constexpr, TYPE: tl.constexpr):
    """(Q * K, ENTRIES): 1 at the entry of each pair of Q queries and K keys of an axis, offset + key - query."""
    pair = tl.arange(0, Q * K)
    entry = offset + pair % K - pair // K
    return (entry[:, None] == tl.arange(0, ENTRIES)[None, :]).to(TYPE)


@triton.jit
def forward_kernel(
    query, key, value, table, out, log_sums,
    q_stride, k_stride, v_stride, out_stride, sum_stride, size, dilation, heads, scale,
    D: tl.constexpr, DP: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of queries: their output, and the logarithm to base 2 of the sums of their softmax."""
    place, first_y, first_x = locate(size, dilation, heads, TH, TW)
    tile_y, tile_x = tl.arange(0, TH * TW) // TW, tl.arange(0, TH * TW) % TW
    chunk_y, chunk_x = tl.arange(0, ROWS * WIDTH) // WIDTH, tl.arange(0, ROWS * WIDTH) % WIDTH
    keys, values = view(key, k_stride, place, dilation), view(value, v_stride, place, dilation)
    qy, qx = first_y + tile_y, first_x + tile_x
    q = load(view(query, q_stride, place, dilation), first_y, first_x, tile_y, tile_x, D, DP).to(TYPE)
    begin_y, end_y = keys_of(first_y, TH, place[4], KH)
    begin_x, end_x = keys_of(first_x, TW, place[5], KW)
    peak = tl.full([TH * TW], -1e30, tl.float32)
    total = tl.zeros([TH * TW], tl.float32)
    mean = tl.zeros([TH * TW, DP], tl.float32)
    for step in range(tl.cdiv(end_y - begin_y, ROWS) * COLUMNS):
        y, x = begin_y + step // COLUMNS * ROWS, begin_x + step % COLUMNS * WIDTH
        ky, kx = y + chunk_y, x + chunk_x
        k = load(keys, y, x, chunk_y, chunk_x, D, DP).to(TYPE)
        v = load(values, y, x, chunk_y, chunk_x, D, DP).to(TYPE)
        seen = sees(qy[:, None], qx[:, None], ky[None, :], kx[None, :], place, KH, KW)
        scores = addends(seen, qy[:, None], qx[:, None], ky[None, :], kx[None, :], place, table, KH, KW)
        scores = tl.dot(q, tl.trans(k), scores, input_precision=PRECISION)
        higher = tl.maximum(peak, tl.max(scores, 1) * (scale * LOG2E))
        weights = tl.exp2(scores * (scale * LOG2E) - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weights, 1)
        mean = tl.dot(weights.to(TYPE), v, mean * shrink[:, None], input_precision=PRECISION)
        peak = higher
    total = tl.maximum(total, 0.5)  # a query has 1 or more; behind the group there is none
    mean *= (1.0 / total)[:, None]
    store(view(out, out_stride, place, dilation), first_y, first_x, tile_y, tile_x, mean, D, DP)
    own, exists = pointers(view(log_sums, sum_stride, place, dilation), first_y, first_x, tile_y, tile_x)
    tl.store(own, peak + tl.log2(total), exists)


@triton.jit
def query_kernel(
    query, key, value, table, out, grad, log_sums, deltas, grad_query, grad_tables,
    q_stride, k_stride, v_stride, out_stride, grad_stride, sum_stride, size, dilation, heads, scale,
    D: tl.constexpr, DP: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
    EH: tl.constexpr, EW: tl.constexpr,
):  # fmt: skip
    """A tile of queries: their gradient, `deltas` (sums of out * grad over D), and their part of the bias table's."""
    place, first_y, first_x = locate(size, dilation, heads, TH, TW)
    tile_y, tile_x = tl.arange(0, TH * TW) // TW, tl.arange(0, TH * TW) % TW
    chunk_y, chunk_x = tl.arange(0, ROWS * WIDTH) // WIDTH, tl.arange(0, ROWS * WIDTH) % WIDTH
    keys, values = view(key, k_stride, place, dilation), view(value, v_stride, place, dilation)
    qy, qx = first_y + tile_y, first_x + tile_x
    q = load(view(query, q_stride, place, dilation), first_y, first_x, tile_y, tile_x, D, DP).to(TYPE)
    g = load(view(grad, grad_stride, place, dilation), first_y, first_x, tile_y, tile_x, D, DP)
    o = load(view(out, out_stride, place, dilation), first_y, first_x, tile_y, tile_x, D, DP)
    delta = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
    own, exists = pointers(view(deltas, sum_stride, place, dilation), first_y, first_x, tile_y, tile_x)
    tl.store(own, delta, exists)
    own, exists = pointers(view(log_sums, sum_stride, place, dilation), first_y, first_x, tile_y, tile_x)
    log_sum = tl.load(own, exists, other=0.0)
    g = g.to(TYPE)
    begin_y, end_y = keys_of(first_y, TH, place[4], KH)
    begin_x, end_x = keys_of(first_x, TW, place[5], KW)
    dq = tl.zeros([TH * TW, DP], tl.float32)
    if grad_tables is not None:
        entries = tl.zeros([EH, EW], tl.float32)
    for step in range(tl.cdiv(end_y - begin_y, ROWS) * COLUMNS):
        y, x = begin_y + step // COLUMNS * ROWS, begin_x + step % COLUMNS * WIDTH
        ky, kx = y + chunk_y, x + chunk_x
        k = load(keys, y, x, chunk_y, chunk_x, D, DP).to(TYPE)
        v = load(values, y, x, chunk_y, chunk_x, D, DP).to(TYPE)
        seen = sees(qy[:, None], qx[:, None], ky[None, :], kx[None, :], place, KH, KW)
        scores = addends(seen, qy[:, None], qx[:, None], ky[None, :], kx[None, :], place, table, KH, KW)
        scores = tl.dot(q, tl.trans(k), scores, input_precision=PRECISION)
        weights = tl.exp2(scores * (scale * LOG2E) - log_sum[:, None])
        grads = weights * (tl.dot(g, tl.trans(v), input_precision=PRECISION) - delta[:, None])
        dq = tl.dot(grads.to(TYPE), k, dq, input_precision=PRECISION)
        if grad_tables is not None:  # pairs of one offset are summed by a product for each axis
            by_y = one_hot(y - first_y + KH - 1, TH, ROWS, EH, TYPE)
            by_x = one_hot(x - first_x + KW - 1, TW, WIDTH, EW, TYPE)
            pairs = grads.to(TYPE).reshape(TH, TW, ROWS, WIDTH).permute(0, 2, 1, 3).reshape(TH * ROWS, TW * WIDTH)
            pairs = tl.dot(pairs, by_x, input_precision=PRECISION).to(TYPE)
            entries = tl.dot(tl.trans(by_y), pairs, entries, input_precision=PRECISION)
    store(view(grad_query, out_stride, place, dilation), first_y, first_x, tile_y, tile_x, dq * scale, D, DP)
    if grad_tables is not None:
        program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        program += tl.program_id(2).to(tl.int64) * (tl.num_programs(0) * tl.num_programs(1))
        y, x = tl.arange(0, EH)[:, None], tl.arange(0, EW)[None, :]
        own = grad_tables + program * ((2 * KH - 1) * (2 * KW - 1)) + y * (2 * KW - 1) + x
        tl.store(own, entries, (y < 2 * KH - 1) & (x < 2 * KW - 1))


@triton.jit
def key_kernel(
    query, key, value, flipped_table, grad, log_sums, deltas, grad_key, grad_value,
    q_stride, k_stride, v_stride, out_stride, grad_stride, sum_stride, size, dilation, heads, scale,
    D: tl.constexpr, DP: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of keys: their gradient and that of their values. Scores are transposed, and so is the table."""
    place, first_y, first_x = locate(size, dilation, heads, TH, TW)
    tile_y, tile_x = tl.arange(0, TH * TW) // TW, tl.arange(0, TH * TW) % TW
    chunk_y, chunk_x = tl.arange(0, ROWS * WIDTH) // WIDTH, tl.arange(0, ROWS * WIDTH) % WIDTH
    queries, grads = view(query, q_stride, place, dilation), view(grad, grad_stride, place, dilation)
    all_sums, all_deltas = view(log_sums, sum_stride, place, dilation), view(deltas, sum_stride, place, dilation)
    ky, kx = first_y + tile_y, first_x + tile_x
    k = load(view(key, k_stride, place, dilation), first_y, first_x, tile_y, tile_x, D, DP).to(TYPE)
    v = load(view(value, v_stride, place, dilation), first_y, first_x, tile_y, tile_x, D, DP).to(TYPE)
    begin_y, end_y = queries_of(first_y, TH, place[4], KH)
    begin_x, end_x = queries_of(first_x, TW, place[5], KW)
    columns = tl.maximum(tl.cdiv(end_x - begin_x, WIDTH), 0)
    dk, dv = tl.zeros([TH * TW, DP], tl.float32), tl.zeros([TH * TW, DP], tl.float32)
    for step in range(tl.cdiv(end_y - begin_y, ROWS) * columns):
        y, x = begin_y + step // columns * ROWS, begin_x + step % columns * WIDTH
        qy, qx = y + chunk_y, x + chunk_x
        q = load(queries, y, x, chunk_y, chunk_x, D, DP).to(TYPE)
        g = load(grads, y, x, chunk_y, chunk_x, D, DP).to(TYPE)
        own, exists = pointers(all_sums, y, x, chunk_y, chunk_x)
        log_sum = tl.load(own, exists, other=0.0)
        own, exists = pointers(all_deltas, y, x, chunk_y, chunk_x)
        delta = tl.load(own, exists, other=0.0)
        seen = sees(qy[None, :], qx[None, :], ky[:, None], kx[:, None], place, KH, KW)
        scores = addends(seen, ky[:, None], kx[:, None], qy[None, :], qx[None, :], place, flipped_table, KH, KW)
        scores = tl.dot(k, tl.trans(q), scores, input_precision=PRECISION)
        weights = tl.exp2(scores * (scale * LOG2E) - log_sum[None, :])
        dv = tl.dot(weights.to(TYPE), g, dv, input_precision=PRECISION)
        scores = weights * (tl.dot(v, tl.trans(g), input_precision=PRECISION) - delta[None, :])
        dk = tl.dot(scores.to(TYPE), q, dk, input_precision=PRECISION)
    store(view(grad_key, out_stride, place, dilation), first_y, first_x, tile_y, tile_x, dk * scale, D, DP)
    store(view(grad_value, out_stride, place, dilation), first_y, first_x, tile_y, tile_x, dv, D, DP)

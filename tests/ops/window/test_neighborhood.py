"""Neighborhood attention: the reference against a loop written from the rule, every backend against the reference.

The authors' numbers are in tests/golden/ops, run by tests/zoo/test_golden.py.
"""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from ops.window.neighborhood import blocked, chunked, fused, lines, na1d, na2d, na3d, reference, tiles, weights
from ops.window.neighborhood.functional import make_window
from tests.ops.conftest import assert_near

NA = {1: na1d, 2: na2d, 3: na3d}


def one_axis(i, length, kernel, stride, dilation, causal):
    """Keys of query i, from the rule's sentences: neighbours of its dilation group, the window slid into the map."""
    group = list(range(i % dilation, length, dilation))
    p, n = group.index(i), len(group)
    block = [other for other in range(n) if other // stride == p // stride]
    if causal:
        leader = min(p // stride * stride + stride - 1, n - 1)
        slots = [s for s in range(leader - kernel + 1, p + 1) if s >= 0]
    else:
        centre = min(block[0] + stride // 2, n - 1)
        slots = list(range(centre - kernel // 2, centre - kernel // 2 + kernel))
        while slots[0] < 0:
            slots = [s + 1 for s in slots]
        while slots[-1] >= n:
            slots = [s - 1 for s in slots]
    return [(group[s], s - p + kernel - 1) for s in slots]


def loop(query, key, value, window, scale, bias):
    """Neighborhood attention, one query and one head at a time."""
    out = torch.zeros_like(query)
    size = query.shape[1:-2]
    for place in itertools.product(*(range(length) for length in size)):
        axes = [one_axis(i, length, *axis) for i, length, axis in zip(place, size, zip(*window))]
        pairs = list(itertools.product(*axes))
        for b, h in itertools.product(range(query.shape[0]), range(query.shape[-2])):
            keys = [tuple(position for position, _ in pair) for pair in pairs]
            scores = torch.stack([query[(b, *place, h)] @ key[(b, *k, h)] * scale for k in keys])
            if bias is not None:
                scores = scores + torch.stack([bias[(h, *(entry for _, entry in pair))] for pair in pairs])
            out[(b, *place, h)] = scores.softmax(0) @ torch.stack([value[(b, *k, h)] for k in keys])
    return out


def inputs(size, window, batch=1, heads=2, width=4, dtype=torch.float32, biased=True, contiguous=True, grad=True):
    """Queries, keys, values and bias, the first three slices of one tensor when not contiguous."""
    shape = (batch, *size, heads, width)
    if contiguous:
        qkv = [torch.randn(shape, dtype=torch.float64).to(dtype) for _ in range(3)]
    else:
        qkv = list(torch.randn((batch, *size, 3, heads, width), dtype=torch.float64).to(dtype).unbind(-3))
    bias = torch.randn(heads, *(2 * k - 1 for k in window.kernel_size), dtype=torch.float64).to(dtype)
    return [x.detach().requires_grad_(grad) for x in [*qkv, *([bias] if biased else [])]]


def outputs(run, leaves, window, scale):
    """Result, and gradients of a fixed random projection of it."""
    bias = leaves[3] if len(leaves) == 4 else None
    out = run(*leaves[:3], window, scale, bias, 0.0)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out, *torch.autograd.grad(out, leaves, weight)]


def assert_agrees(run, leaves, window, scale=0.4):
    dtype = leaves[0].dtype
    expected = outputs(reference.attend, [x.detach().double().requires_grad_() for x in leaves], window, scale)
    for actual, wanted in zip(outputs(run, leaves, window, scale), expected):
        assert actual.dtype == dtype
        assert_near(actual, wanted, dtype)


@pytest.fixture(params=[True, False], ids=['Intel', 'others'])
def processor(request, monkeypatch):
    """Processors on which other maps are fused."""
    monkeypatch.setattr(fused, 'is_intel', lambda: request.param)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of two or so queries along an axis and one sample at a time, so that small maps have many of each."""
    monkeypatch.setattr(fused, 'is_intel', lambda: False)
    monkeypatch.setattr(tiles, 'TILE', {1: (4,), 2: (2, 2), 3: (2, 2, 2)})
    monkeypatch.setattr(tiles, 'SHORT', 0)
    monkeypatch.setattr(chunked, 'CHUNK_SCORES', 1)
    caches = (
        tiles.cached_tables,
        weights.cached_seen,
        lines.cached_lines,
        chunked.cached_rows,
        chunked.cached_places,
    )
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


SMALL = [
    ((9,), (3, 1, 1, False)),
    ((13,), (4, 3, 2, False)),
    ((13,), (5, 5, 2, True)),
    ((5, 7), (3, 1, 1, False)),
    ((7, 6), ((3, 2), (2, 1), (2, 3), (False, False))),
    ((6, 5), ((3, 4), (3, 2), 1, (True, False))),
    ((4, 5), ((4, 5), 1, 1, False)),
    ((3, 4, 5), ((2, 3, 3), (1, 2, 1), (1, 1, 1), (True, False, False))),
]


@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize(('size', 'window'), SMALL)
def test_reference_is_the_rule(size, window, biased):
    window = make_window(len(size), *window)
    leaves = inputs(size, window, dtype=torch.float64, biased=biased, grad=False)
    bias = leaves[3] if biased else None
    expected = loop(*leaves[:3], window, 0.4, bias)
    assert_near(reference.attend(*leaves[:3], window, 0.4, bias, 0.0), expected, torch.float64)


PATHS = {  # what the blocked backend does with it -> map and window
    'whole map': ((14, 15), (7,)),
    'whole map, all seen': ((7, 7), (7,)),
    'tiles': ((18, 26), (7,)),
    'tiles along one axis': ((6, 26), (5,)),
    'equal groups': ((16, 24), (5, 1, (2, 3))),
    'unequal groups': ((15, 23), (5, 1, (2, 3))),
    'tiles of unequal groups': ((37, 18), (3, 1, (2, 1))),
    'strided tiles': ((37, 20), ((7, 6), (3, 4), (2, 1))),
    'causal tiles': ((19, 18), (5, (1, 5), 1, (True, True))),
    'one axis': ((300,), (7, 2, 2)),
    'three axes': ((10, 9, 3), (3, 1, (1, 1, 1))),
}


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('path', PATHS)
def test_blocked_equals_reference(path, biased):
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    assert_agrees(blocked.attend, inputs(size, window, batch=2, biased=biased), window)


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('path', PATHS)
def test_blocked_takes_any_order_in_memory(path, biased):
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    qkv = [torch.randn(2, 2, 4, *size).permute(0, *range(3, 3 + len(size)), 1, 2).requires_grad_() for _ in range(3)]
    bias = inputs(size, window)[3:] if biased else []
    assert qkv[0].stride(-1) > 1
    assert_agrees(blocked.attend, [*qkv, *bias], window)


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('path', PATHS)
def test_inference_is_what_training_sees(path, biased):
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    query, key, value, *bias = inputs(size, window, batch=2, biased=biased)
    call = (query, key, value, window, 0.4, bias[0] if biased else None, 0.0)
    with torch.no_grad():
        assert_near(blocked.attend(*call), reference.attend(*call))


@pytest.mark.parametrize('scores', ['large', 'small', 'those of the bias'])
@pytest.mark.parametrize('path', PATHS)
def test_scores_may_leave_the_range_of_exponentials(path, scores, monkeypatch):
    monkeypatch.setattr(fused, 'is_intel', lambda: False)
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    query, key, value, bias = inputs(size, window, grad=False)
    if scores == 'those of the bias':
        bias = bias.sign() * 100
    else:
        query[..., 0], key[..., 0] = 15.0, 20.0 if scores == 'large' else -20.0
    found = blocked.attend(query, key, value, window, 0.4, bias, 0.0)
    assert_near(found, reference.attend(query.double(), key.double(), value.double(), window, 0.4, bias.double(), 0.0))


@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('path', PATHS)
def test_gradients_of_scores_beyond_that_range(path, biased, monkeypatch):
    monkeypatch.setattr(fused, 'is_intel', lambda: False)
    monkeypatch.setattr(weights, 'LARGEST_SUM', 1e-3)  # where all are
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    assert_agrees(blocked.attend, inputs(size, window, biased=biased), window)


MAPS = [(size, make_window(len(size), *window)) for size, window in (*SMALL, *PATHS.values())]
WHOLE_MAPS = [(size, window) for size, window in MAPS if max(window.dilation) == 1]


@pytest.mark.parametrize(
    ('size', 'window', 'whole'), [(*call, whole) for whole, maps in enumerate((MAPS, WHOLE_MAPS)) for call in maps]
)
def test_lines_are_the_entries_of_the_table(size, window, whole):
    table = torch.randn(2, *(2 * k - 1 for k in window.kernel_size), dtype=torch.float64, requires_grad=True)
    tables = tiles.make_tables(size, window, True, table.dtype, table.device, eager=True, whole=bool(whole))
    mask = tiles.make_mask(tables._replace(kinds=None), table, table.dtype)
    found = lines.cached_lines(size, window, 2, bool(whole))
    assert torch.equal(lines.spread(table.detach(), found, float('-inf')), mask)
    grad = torch.randn_like(mask).masked_fill(mask.isinf(), 0.0)
    (expected,) = torch.autograd.grad(mask, table, grad)
    assert_near(lines.collect(grad, found, table), expected)


def test_a_map_is_fused_where_units_are_slower(monkeypatch):
    """As measured; never with a bias to be trained, nor dilated."""

    def is_fused(size, biased=False, batch=1, dilation=1, intel=True):
        monkeypatch.setattr(fused, 'is_intel', lambda: intel)
        window = make_window(2, 7, dilation=dilation)
        query, key, value, *bias = inputs((size, size), window, batch=batch, heads=8, biased=biased)
        seen = []
        monkeypatch.setattr(fused, 'attend', lambda *call: seen.append(call) or query)
        blocked.attend(query, key, value, window, 1.0, bias[0] if biased else None, 0.0)
        return bool(seen)

    assert [is_fused(size) for size in (7, 10, 14, 20)] == [True, True, True, False]
    assert [is_fused(size, intel=False) for size in (7, 10, 14)] == [True, False, False]
    assert [is_fused(14, batch=batch) for batch in (1, 8)] == [True, False]
    assert [is_fused(size, dilation=2) for size in (14, 20)] == [False, False]
    assert not is_fused(7, biased=True)
    with torch.no_grad():
        assert is_fused(7, biased=True)


@st.composite
def calls(draw):
    """Size, window and the rest of a call."""
    axes = draw(st.integers(1, 3))
    largest = {1: 40, 2: 13, 3: 7}[axes]
    dilation = [draw(st.integers(1, 3)) for _ in range(axes)]
    kernel_size = [draw(st.integers(1, max(1, min(7, largest // d)))) for d in dilation]
    size = tuple(draw(st.integers(k * d, max(largest, k * d))) for k, d in zip(kernel_size, dilation))
    stride = [draw(st.integers(1, k)) for k in kernel_size]
    is_causal = [draw(st.booleans()) for _ in range(axes)]
    options = dict(
        batch=draw(st.integers(0, 3)),
        heads=draw(st.integers(1, 3)),
        width=draw(st.sampled_from([1, 3, 8])),
        dtype=draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])),
        biased=draw(st.booleans()),
        contiguous=draw(st.booleans()),
    )
    return size, make_window(axes, kernel_size, stride, dilation, is_causal), options


@pytest.mark.usefixtures('small_tiles')
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(call=calls())
def test_blocked_equals_reference_on_any_call(call):
    size, window, options = call
    torch.manual_seed(0)
    assert_agrees(blocked.attend, inputs(size, window, **options), window)


@pytest.mark.usefixtures('small_tiles')
@pytest.mark.parametrize('run', [reference.attend, blocked.attend], ids=['reference', 'blocked'])
@pytest.mark.parametrize(('size', 'window'), [((7,), (3,)), ((7, 5), ((3, 2), 1, (2, 1), (False, True)))])
def test_gradients_are_those_of_the_output(run, size, window):
    window = make_window(len(size), *window)
    leaves = inputs(size, window, heads=1, width=2, batch=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q, k, v, bias: run(q, k, v, window, 0.7, bias, 0.0), leaves, fast_mode=True)


@pytest.mark.parametrize('size', [(7, 7), (11, 30)], ids=['a unit', 'many units'])
@pytest.mark.parametrize('biased', [True, False])
def test_second_gradients_and_many_at_a_time(size, biased):
    leaves = [torch.randn(2, *size, 2, 4, requires_grad=True) for _ in range(3)]
    if biased:
        leaves.append(torch.randn(2, 9, 9, requires_grad=True))
    directions = torch.randn(2, 2, *size, 2, 4)

    def derivatives(backend):
        def run():
            return na2d(*leaves[:3], 5, rel_pos_bias=leaves[3] if biased else None, backend=backend)

        first = torch.autograd.grad(run().square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), leaves)
        return *second, *torch.autograd.grad(run(), leaves, directions, is_grads_batched=True)

    for actual, expected in zip(derivatives('blocked'), derivatives('reference')):
        assert_near(actual, expected)


@pytest.mark.parametrize('heads', [1, 2])
@pytest.mark.parametrize('size', [(5, 7), (20, 19)])
def test_results_may_be_changed_in_place(size, heads):
    q, k, v = inputs(size, make_window(2, 5), heads=heads, biased=False)
    out = na2d(q, k, v, 5)
    out += v
    (gradient,) = torch.autograd.grad(out.square().sum(), v)
    assert_near(gradient, torch.autograd.grad((na2d(q, k, v, 5) + v).square().sum(), v)[0])


def test_forward_mode_takes_the_reference():
    window = make_window(2, 3)
    q, k, v, bias = inputs((6, 20), window, dtype=torch.float64)
    tangents = [torch.randn_like(x) for x in (q, k, v, bias)]

    def run(q, k, v, bias, backend=None):
        return na2d(q, k, v, 3, rel_pos_bias=bias, backend=backend)

    with torch.no_grad():
        _, along = torch.func.jvp(run, (q, k, v, bias), tuple(tangents))
        near = [run(*(x + step * t for x, t in zip((q, k, v, bias), tangents))) for step in (1e-5, -1e-5)]
    torch.testing.assert_close(along, (near[0] - near[1]) / 2e-5, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match='blocked.*no torch.func and no forward mode'):
        torch.func.jvp(lambda *x: run(*x, 'blocked'), (q, k, v, bias), tuple(tangents))


@pytest.mark.parametrize('wanted', [0, 1, 2, 3])
def test_one_gradient_alone(wanted):
    window = make_window(2, 3)
    leaves = inputs((6, 20), window)
    for i, leaf in enumerate(leaves):
        leaf.requires_grad_(i == wanted)
    grads = []
    for run in (blocked.attend, reference.attend):
        leaves[wanted].grad = None
        run(*leaves[:3], window, 1.0, leaves[3], 0.0).square().sum().backward()
        grads.append(leaves[wanted].grad)
    assert_near(*grads)


@pytest.mark.parametrize('axes', [1, 2, 3])
@pytest.mark.parametrize('backend', ['reference', 'blocked', None])
def test_functions_take_numbers_and_tuples(axes, backend):
    window = make_window(axes, 3, 2, 2, True)
    q, k, v, bias = inputs((6, 7, 8)[:axes], window)
    plain = NA[axes](q, k, v, 3, 2, 2, True, 0.3, rel_pos_bias=bias, backend=backend)
    tuples = NA[axes](q, k, v, *(tuple(entry) for entry in window), 0.3, rel_pos_bias=bias, backend=backend)
    assert torch.equal(plain, tuples)
    assert_near(plain, reference.attend(q, k, v, window, 0.3, bias, 0.0))


def test_scale_is_that_of_the_width():
    window = make_window(1, 3)
    q, k, v = inputs((9,), window, width=16, biased=False)
    assert torch.equal(na1d(q, k, v, 3), na1d(q, k, v, 3, scale=0.25))


def test_bias_may_have_another_dtype():
    window = make_window(2, 3)
    q, k, v, bias = inputs((6, 20), window, dtype=torch.bfloat16)
    out = na2d(q, k, v, 3, rel_pos_bias=bias.float())
    assert out.dtype == torch.bfloat16
    assert_near(out, na2d(q.double(), k.double(), v.double(), 3, rel_pos_bias=bias.double()), torch.bfloat16)


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('path', PATHS)
def test_autocast_leaves_the_type(path, biased):
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    query, key, value, *bias = inputs(size, window, biased=biased)
    call = (query, key, value, window, 0.4, bias[0] if biased else None, 0.0)
    with torch.autocast('cpu', torch.bfloat16):
        trained = blocked.attend(*call)
        with torch.no_grad():
            inferred = blocked.attend(*call)
    expected = reference.attend(*call)
    for out in (trained, inferred):
        assert out.dtype is torch.float32
        assert_near(out, expected.bfloat16().float(), torch.bfloat16)


@pytest.mark.parametrize('backend', ['reference', 'blocked'])
def test_dropout_drops_weights(backend):
    window = make_window(2, 3)
    q, k, _ = inputs((20, 20), window, biased=False, grad=False)
    run = {'reference': reference.attend, 'blocked': blocked.attend}[backend]
    out = run(q, k, torch.ones_like(q), window, 0.1, None, 0.5)
    assert out.std() > 0.2  # without dropout every row of weights sums to 1
    assert abs(out.mean().item() - 1) < 0.05


@pytest.mark.parametrize(
    ('axes', 'arguments', 'message'),
    [
        (2, dict(kernel_size=(3, 3, 3)), 'kernel_size has 3 entries.*one number or 2'),
        (2, dict(kernel_size=0), 'kernel_size is .0, 0.: every entry must be at least 1'),
        (1, dict(kernel_size=3, dilation=-1), 'dilation is .-1,.'),
        (2, dict(kernel_size=3, stride=(1, 4)), 'stride .1, 4. is larger than kernel_size .3, 3.'),
        (2, dict(kernel_size=5, dilation=2), 'kernel_size .5, 5. . dilation .2, 2. is larger than the map .8, 12.'),
    ],
)
def test_impossible_window_is_refused(axes, arguments, message):
    q, k, v = (torch.randn(1, *(8, 12)[:axes], 2, 4) for _ in range(3))
    with pytest.raises(ValueError, match=message):
        NA[axes](q, k, v, **arguments)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(query=torch.zeros(8, 12, 2, 4)), r'query has shape \(8, 12, 2, 4\): 2 axes take 5 dimensions'),
        (dict(key=torch.zeros(1, 8, 11, 2, 4)), r'key has shape \(1, 8, 11, 2, 4\), query \(1, 8, 12, 2, 4\)'),
        (dict(value=torch.zeros(1, 8, 12, 2, 4).half()), 'value is torch.float16 on cpu, query is torch.float32'),
        (dict(key=torch.zeros(1, 8, 12, 2, 4, device='meta')), 'key is torch.float32 on meta'),
        (dict.fromkeys(('query', 'key', 'value'), torch.ones(1, 8, 12, 2, 4).int()), 'query is torch.int32'),
        (dict(rel_pos_bias=torch.zeros(2, 3, 3)), r'rel_pos_bias has shape \(2, 3, 3\).* is \(2, 5, 5\)'),
        (dict(rel_pos_bias=torch.zeros(2, 5, 5).long()), 'rel_pos_bias is torch.int64'),
        (dict(backend='fast'), "no backend 'fast'; choose one of: natten, native, blocked, flex, reference, triton"),
        (dict(backend='flex'), 'flex: it is compiled for CUDA only'),
        (dict(backend='natten'), 'natten: its kernels run on CUDA only'),
    ],
)
def test_misfitting_call_is_refused(change, message):
    call = dict(zip(('query', 'key', 'value'), torch.zeros(3, 1, 8, 12, 2, 4))) | change
    with pytest.raises(ValueError, match=message):
        na2d(**call, kernel_size=3)


def test_training_keeps_only_its_inputs():
    """Autograd saves neither the keys gathered for the tiles, nor scores, nor the mask."""
    window = make_window(2, 7)
    leaves = inputs((56, 56), window, width=16)
    saved = set()

    def keep(x):
        saved.add(x.untyped_storage().data_ptr())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        blocked.attend(*leaves[:3], window, 0.2, leaves[3], 0.0)
    assert saved == {x.untyped_storage().data_ptr() for x in leaves}


def test_kept_tables_are_small():
    """Units that see alike share a mask: a map of four times the positions needs not four times the masks."""
    for biased in (False, True):
        small, large = (
            tiles.cached_tables((side, side), make_window(2, 7), biased, torch.float32, torch.device('cpu'))
            for side in (32, 64)
        )
        for name in ('entries', 'mask'):
            table = getattr(large, name)
            assert (table is None) is (biased is (name == 'mask'))
            assert table is None or table.shape == getattr(small, name).shape == (9, 32, 140)


def test_tables_serve_training_after_inference_mode():
    tiles.cached_tables.cache_clear()
    window = make_window(2, 3)
    leaves = inputs((6, 30), window)
    with torch.inference_mode():
        blocked.attend(*leaves[:3], window, 1.0, leaves[3], 0.0)
    assert_agrees(blocked.attend, leaves, window)


def test_tables_of_fake_tensors_are_not_kept():
    tiles.cached_tables.cache_clear()
    window = make_window(2, 3)
    leaves = inputs((6, 30), window)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) for x in leaves]
        assert blocked.attend(*fakes[:3], window, 1.0, fakes[3], 0.0).shape == leaves[0].shape
    assert_agrees(blocked.attend, leaves, window)
    with mode:
        assert blocked.attend(*fakes[:3], window, 1.0, fakes[3], 0.0).shape == leaves[0].shape


def test_tables_are_kept_and_bounded():
    tiles.cached_tables.cache_clear()
    for length in range(8, 80):
        for _ in range(2):
            na1d(*torch.zeros(3, 1, length, 1, 1), 3)
    info = tiles.cached_tables.cache_info()
    assert info.misses == 72 <= info.hits
    assert info.currsize == info.maxsize < 72


@pytest.mark.parametrize('path', ['whole map, all seen', 'tiles of unequal groups'])
def test_compiles_without_graph_break(path):
    torch.compiler.reset()
    size, window = PATHS[path]
    compiled = torch.compile(blocked.attend, fullgraph=True, backend='aot_eager')
    window = make_window(len(size), *window)
    assert_agrees(compiled, inputs(size, window, batch=2), window)


def test_dynamic_length_compiles_once():
    torch.compiler.reset()
    compiled = torch.compile(blocked.attend, fullgraph=True, backend='aot_eager', dynamic=True)
    window = make_window(1, 3)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (200, 331):
            q, k, v = inputs((length,), window, biased=False, grad=False)
            assert_near(compiled(q, k, v, window, 1.0, None, 0.0), reference.attend(q, k, v, window, 1.0, None, 0.0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_blocked_equals_reference_on_cuda(path, biased, dtype):
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    leaves = [x.detach().cuda().requires_grad_() for x in inputs(size, window, 2, 2, 16, dtype, biased)]
    assert_agrees(blocked.attend, leaves, window)

"""The kernels in C++ against the reference, as built for every kind of processor that this one can stand in for."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops import NeighborhoodAttention2D, _native
from ops._backends import choose
from ops.window.neighborhood import BACKENDS, na2d, native, reference
from ops.window.neighborhood.functional import make_window
from tests.ops.conftest import assert_near, needs_cpp
from tests.ops.window.test_neighborhood import assert_agrees, inputs

pytestmark = needs_cpp


PATHS = {
    'rows': ((14, 15), (7,)),
    'whole map': ((7, 7), (7,)),
    'whole map of many vectors': ((10, 11), ((10, 11),)),
    'whole map, too large to be turned': ((12, 12), (12,)),
    'whole map of one query': ((1, 1), (1,)),
    'groups': ((15, 23), (5, 1, (2, 3))),
    'strides': ((17, 20), ((7, 6), (3, 4), (2, 1))),
    'few keys': ((6, 9), ((1, 3),)),
    'a row': ((1, 20), ((1, 5),)),
    'one axis': ((70,), (7, 2, 2)),
    'one axis, whole': ((20,), (20,)),
    'one axis, many keys': ((120,), (100,)),
    'three axes': ((10, 9, 3), (3, 1, (1, 1, 1))),
    'three axes, whole': ((3, 4, 5), ((3, 4, 5),)),
}


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('width', native.WIDTHS)
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('path', PATHS)
def test_native_equals_reference(path, biased, width):
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    leaves = inputs(size, window, batch=2, heads=3, width=width, biased=biased, contiguous=False)
    assert_agrees(native.attend, leaves, window)
    bias = leaves[3] if biased else None
    with torch.no_grad():
        call = (*leaves[:3], window, 0.4, bias, 0.0)
        assert_near(native.attend(*call), reference.attend(*call))


@st.composite
def calls(draw):
    axes = draw(st.integers(1, 3))
    largest = {1: 40, 2: 13, 3: 7}[axes]
    dilation = [draw(st.integers(1, 3)) for _ in range(axes)]
    kernel_size = [draw(st.integers(1, max(1, min(7, largest // d)))) for d in dilation]
    size = tuple(draw(st.integers(k * d, max(largest, k * d))) for k, d in zip(kernel_size, dilation))
    stride = [draw(st.integers(1, k)) for k in kernel_size]
    options = dict(
        batch=draw(st.integers(1, 3)),
        heads=draw(st.integers(1, 3)),
        width=draw(st.sampled_from(native.WIDTHS)),
        dtype=draw(st.sampled_from(native.DTYPES)),
        biased=draw(st.booleans()),
        contiguous=draw(st.booleans()),
    )
    return size, make_window(axes, kernel_size, stride, dilation), options


@pytest.mark.usefixtures('processor')
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(call=calls())
def test_native_equals_reference_on_any_call(call):
    size, window, options = call
    torch.manual_seed(0)
    assert_agrees(native.attend, inputs(size, window, **options), window)


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('path', ['rows', 'whole map', 'groups', 'one axis', 'three axes'])
def test_native_takes_any_order_in_memory(path):
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    qkv = [torch.randn(2, 2, 16, *size).permute(0, *range(3, 3 + len(size)), 1, 2).requires_grad_() for _ in range(3)]
    assert qkv[0].stride(-1) > 1
    assert_agrees(native.attend, [*qkv, *inputs(size, window)[3:]], window)


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('scores', ['large', 'small', 'far apart', 'those of the bias'])
@pytest.mark.parametrize('path', ['rows', 'whole map', 'groups'])
def test_scores_may_be_of_any_size(path, scores):
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    query, key, value, bias = inputs(size, window, width=16, grad=False)
    if scores == 'those of the bias':
        bias = bias.sign() * 100
    elif scores == 'far apart':
        query, key = query * 5, key * 5
    else:
        query[..., 0], key[..., 0] = 15.0, 20.0 if scores == 'large' else -20.0
    assert_agrees(native.attend, [x.requires_grad_() for x in (query, key, value, bias)], window)


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('path', ['rows', 'whole map', 'groups'])
@pytest.mark.parametrize('number', [float('nan'), float('inf')])
def test_nan_is_not_hidden(path, number):
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    query, key, value = inputs(size, window, width=16, biased=False, grad=False)
    key[:, 3, 4, 0, 5] = number
    call = (query, key, value, window, 0.4, None, 0.0)
    assert torch.equal(native.attend(*call).isnan(), reference.attend(*call).isnan())


@pytest.mark.usefixtures('processor')
@pytest.mark.parametrize('path', PATHS)
def test_threads_change_nothing(path):
    """Every sum is of one thread, in an order of its own."""
    size, window = PATHS[path]
    window = make_window(len(size), *window)
    leaves = inputs(size, window, batch=2, width=16)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            out = native.attend(*leaves[:3], window, 0.4, leaves[3], 0.0)
            found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, three) for one, three in zip(*found))


@pytest.mark.usefixtures('processor')
def test_few_units_at_a_time(monkeypatch):
    """The backward pass goes through images and heads in chunks."""
    window = make_window(2, 3)
    leaves = inputs((6, 7), window, batch=3, heads=3, width=16)
    monkeypatch.setattr(native, 'SPACE', 1)
    assert_agrees(native.attend, leaves, window)


@pytest.mark.parametrize('size', [(7, 7), (11, 30)])
def test_second_gradients_and_many_at_a_time(size):
    leaves = [torch.randn(2, *size, 2, 16, requires_grad=True) for _ in range(3)]
    leaves.append(torch.randn(2, 13, 13, requires_grad=True))
    directions = torch.randn(2, 2, *size, 2, 16)

    def derivatives(backend):
        def run():
            return na2d(*leaves[:3], 7, rel_pos_bias=leaves[3], backend=backend)

        first = torch.autograd.grad(run().square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), leaves)
        return *second, *torch.autograd.grad(run(), leaves, directions, is_grads_batched=True)

    for actual, expected in zip(derivatives('native'), derivatives('reference')):
        assert_near(actual, expected)


@pytest.mark.parametrize('wanted', [0, 1, 2, 3])
@pytest.mark.parametrize('size', [(7, 7), (9, 20)])
def test_one_gradient_alone(size, wanted):
    window = make_window(2, 7)
    leaves = inputs(size, window, width=16)
    for i, leaf in enumerate(leaves):
        leaf.requires_grad_(i == wanted)
    grads = []
    for run in (native.attend, reference.attend):
        leaves[wanted].grad = None
        run(*leaves[:3], window, 1.0, leaves[3], 0.0).square().sum().backward()
        grads.append(leaves[wanted].grad)
    assert_near(*grads)


def test_results_may_be_changed_in_place():
    q, k, v = inputs((7, 9), make_window(2, 5), width=16, biased=False)
    out = na2d(q, k, v, 5, backend='native')
    out += v
    (gradient,) = torch.autograd.grad(out.square().sum(), v)
    assert_near(gradient, torch.autograd.grad((na2d(q, k, v, 5, backend='reference') + v).square().sum(), v)[0])


@pytest.mark.parametrize('dtype', native.DTYPES)
def test_types_are_those_of_the_inputs(dtype):
    q, k, v, bias = inputs((7, 9), make_window(2, 5), width=16, dtype=dtype)
    with torch.autocast('cpu', torch.bfloat16):
        out = na2d(q, k, v, 5, rel_pos_bias=bias.float(), backend='native')
        with torch.no_grad():
            inferred = na2d(q, k, v, 5, rel_pos_bias=bias, backend='native')
    out.sum().backward()
    assert {x.dtype for x in (out, inferred, q.grad, k.grad, v.grad, bias.grad)} == {dtype}
    assert_near(out, reference.attend(q, k, v, make_window(2, 5), 0.25, bias, 0.0), dtype)


def test_training_keeps_only_its_inputs():
    window = make_window(2, 7)
    leaves = inputs((28, 28), window, width=16)
    saved = set()

    def keep(x):
        saved.add(x.untyped_storage().data_ptr())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        native.attend(*leaves[:3], window, 0.2, leaves[3], 0.0)
    assert saved == {x.untyped_storage().data_ptr() for x in leaves}


def test_tables_serve_training_after_inference_mode():
    native.cached_map.cache_clear()
    window = make_window(2, 3)
    leaves = inputs((6, 30), window, width=16)
    with torch.inference_mode():
        native.attend(*leaves[:3], window, 1.0, leaves[3], 0.0)
    assert_agrees(native.attend, leaves, window)


def test_gradients_of_a_module_are_not_put_together():
    """Those of queries, keys and values lie where the projection's gradient is to be."""
    module = NeighborhoodAttention2D(64, 2, 7)
    x = torch.randn(1, 14, 14, 64)
    module(x)  # makes its tables
    with torch.profiler.profile() as recorder:
        module(x).sum().backward()
    names = {event.name for event in recorder.events()}
    assert 'NativeAttentionBackward' in names
    assert names.isdisjoint(('aten::cat', 'aten::stack'))


class Own(torch.Tensor):
    pass


def changed(**change):
    q, k, v = torch.randn(3, 1, 9, 12, 2, 16)
    return dict(query=q, key=k, value=v, kernel_size=3) | change


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (dict.fromkeys(('query', 'key', 'value'), torch.randn(1, 9, 12, 2, 24)), 'heads have 24 channels, it takes 16'),
        (dict.fromkeys(('query', 'key', 'value'), torch.randn(1, 9, 12, 2, 16).double()), 'of torch.float64'),
        (dict(query=torch.randn(1, 9, 12, 2, 16).as_subclass(Own)), 'query is a Own'),
        (dict(is_causal=True), 'windows are causal'),
        (dict.fromkeys(('query', 'key', 'value'), torch.randn(0, 9, 12, 2, 16)), 'query is a Tensor'),
        (dict.fromkeys(('query', 'key', 'value'), torch.randn(1, 9, 12, 2, 16, device='meta')), 'query is on meta'),
        (dict(rel_pos_bias=torch.randn(2, 5, 5).double()), 'rel_pos_bias is a Tensor of torch.float64'),
    ],
)
def test_says_why_not(change, reason):
    with pytest.raises(ValueError, match=f'native: .*{reason}'):
        na2d(**changed(**change), backend='native')
    assert na2d(**changed(**change)).shape == changed(**change)['query'].shape


def test_too_many_keys_and_dropout_are_refused():
    q = torch.randn(1, 600, 1, 16)
    assert native.why_not(q, q, q, make_window(1, 513), 1.0, None, 0.0) == '513 keys of one query, it takes 512'
    assert native.why_not(q, q, q, make_window(1, 512), 1.0, None, 0.0) is None
    assert native.why_not(q, q, q, make_window(1, 3), 1.0, None, 0.1) == 'it has no dropout'


def test_without_a_library_torch_does_the_work(monkeypatch):
    call = changed()
    expected = na2d(**call, backend='native')
    monkeypatch.setattr(_native, 'kernels', lambda: None)
    with pytest.raises(ValueError, match='C.. was not built for this processor: install attnzoo again'):
        na2d(**call, backend='native')
    assert_near(na2d(**call), expected)


def test_it_is_chosen_where_few_keys_are_seen():
    def chosen(size, *window):
        q, k, v = inputs(size, make_window(len(size), *window), width=16, biased=False)
        call = (q, k, v, make_window(len(size), *window), 1.0, None, 0.0)
        return choose(BACKENDS, None, *call) is native.attend

    assert all(chosen((side, side), 7) for side in (7, 14, 28))
    assert chosen((14, 14), 7, 1, 2)
    assert chosen((28, 28), 13)
    assert not chosen((14, 14), 13)
    assert not chosen((26, 26), 13, 1, 2)


def test_compiled_and_transformed_calls_are_left_to_torch():
    window = make_window(2, 3)
    q, k, v, bias = inputs((6, 8), window, width=16)
    expected = na2d(q, k, v, 3, rel_pos_bias=bias)
    compiled = torch.compile(lambda *x: na2d(*x[:3], 3, rel_pos_bias=x[3]), fullgraph=True, backend='aot_eager')
    assert_near(compiled(q, k, v, bias), expected)
    mapped = torch.vmap(lambda *x: na2d(*(y[None] for y in x), 3, rel_pos_bias=bias)[0])(q, k, v)
    assert_near(mapped, expected)

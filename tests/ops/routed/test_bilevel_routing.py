"""Bi-level routing attention against the paper's equations, one query at a time, and every backend against that."""

import itertools
from functools import partial

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from ops import (
    BiLevelRoutingAttention,
    BiLevelRoutingAttention2d,
    DenseLePEAttention,
    DenseLePEAttention2d,
    routed_attention,
)
from ops._backends import choose
from ops.routed.bilevel_routing import BACKENDS, chunked, masked, products, reference
from tests.ops.conftest import assert_near

D64 = torch.float64
every_backend = pytest.mark.parametrize('backend', [backend.name for backend in BACKENDS])


def inputs(batch=2, regions=5, queries=4, sources=6, keys=3, heads=2, width=4, out=6, routes=3, dtype=D64):
    """Queries, keys and values that are leaves, and routes that differ."""
    shapes = ((regions, queries, heads, width), (sources, keys, heads, width), (sources, keys, heads, out))
    qkv = [torch.randn(batch, *shape, dtype=D64).to(dtype).requires_grad_() for shape in shapes]
    chosen = [torch.randperm(sources)[:routes] for _ in range(batch * regions)]
    return qkv, torch.stack(chosen).view(batch, regions, routes)


def loop(query, key, value, routes, scale, weights=None):
    """softmax(scale * q . k) v over the keys of the routes, one query and one head at a time."""
    out = query.new_empty(*query.shape[:4], value.shape[4])
    for b, r, i, n in itertools.product(*map(range, query.shape[:4])):
        factors = [1.0] * routes.shape[2] if weights is None else weights[b, r]
        k = torch.cat([f * key[b, s, :, n] for f, s in zip(factors, routes[b, r])])
        v = torch.cat([f * value[b, s, :, n] for f, s in zip(factors, routes[b, r])])
        out[b, r, i, n] = (k @ query[b, r, i, n] * scale).softmax(0) @ v
    return out


def assert_same(actual, expected, leaves, dtype=D64):
    """Outputs and the gradients of a random projection of them."""
    assert_near(actual, expected, dtype)
    g = torch.randn_like(expected)
    pairs = zip(torch.autograd.grad(actual, leaves, g.to(actual.dtype)), torch.autograd.grad(expected, leaves, g))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, dtype)


@every_backend
@pytest.mark.parametrize(
    'shape', [{}, dict(routes=1), dict(routes=6), dict(queries=1, keys=1), dict(heads=1, out=1), dict(width=5, out=5)]
)
def test_is_the_formula_with_its_gradients(backend, shape):
    qkv, routes = inputs(**shape)
    assert_same(routed_attention(*qkv, routes, 0.4, backend=backend), loop(*qkv, routes, 0.4), qkv)


@pytest.mark.parametrize('width', [4, 6])
@pytest.mark.parametrize('budget', [1, 100, 1000])
def test_chunks_of_regions_and_of_queries_change_nothing(monkeypatch, budget, width):
    monkeypatch.setattr(chunked, 'CHUNK', budget)
    monkeypatch.setattr(products, 'CHUNK', budget)
    monkeypatch.setattr(products, 'MIN_QUERIES', 3)
    qkv, routes = inputs(width=width)
    parts = list(products.chunks(*qkv, routes, budget))
    assert (len(parts) == 20) == (budget == 1)
    expected = loop(*qkv, routes, 0.4)
    assert_same(routed_attention(*qkv, routes, 0.4, backend='chunked'), expected, qkv)
    with torch.no_grad():
        here, elsewhere = (
            (module.run_forward(*qkv, routes, 0.4), *module.run_backward(expected, *qkv, routes, 0.4))
            for module in (products, chunked)
        )
    assert all(torch.allclose(ours, theirs, atol=1e-12) for ours, theirs in zip(here, elsewhere))


@every_backend
def test_half_precision_is_near(backend):
    qkv, routes = inputs(dtype=torch.bfloat16)
    actual = routed_attention(*qkv, routes, backend=backend)
    assert actual.dtype == torch.bfloat16
    assert_near(actual, loop(*(x.double() for x in qkv), routes, 4**-0.5), torch.bfloat16)
    actual.float().square().sum().backward()
    assert all(x.grad.dtype == torch.bfloat16 and x.grad.any() for x in qkv)


@every_backend
def test_backward_pass_inside_autocast(backend):
    module, x = BiLevelRoutingAttention(8, 2, 2, 2, backend=backend), torch.randn(1, 8, 8, 8)
    gradients = []
    for enabled in (False, True):
        leaf = x.clone().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            module(leaf).float().square().sum().backward()
        gradients.append(leaf.grad)
    assert_near(gradients[1], gradients[0], torch.bfloat16)


def test_soft_routes_weigh_keys_and_values():
    qkv, routes = inputs()
    weights = torch.rand(routes.shape, dtype=D64, requires_grad=True)
    leaves = [*qkv, weights]
    assert_same(routed_attention(*qkv, routes, 0.4, weights=weights), loop(*qkv, routes, 0.4, weights), leaves)


def test_what_a_backend_cannot_do_is_an_error():
    qkv, routes = inputs()
    with pytest.raises(ValueError, match=r'masked.*soft routing'):
        routed_attention(*qkv, routes, weights=torch.ones(routes.shape, dtype=D64), backend='masked')
    with pytest.raises(ValueError, match=r'chunked.*soft routing'):
        routed_attention(*qkv, routes, weights=torch.ones(routes.shape, dtype=D64), backend='chunked')
    with pytest.raises(ValueError, match=r'chunked.*dropout'):
        routed_attention(*qkv, routes, dropout_p=0.5, backend='chunked')


@every_backend
def test_second_derivatives_and_many_outputs_at_a_time(backend):
    qkv, routes = inputs()
    directions = torch.randn(3, *qkv[0].shape[:4], 6, dtype=D64)

    def derivatives(attend):
        first = torch.autograd.grad(attend(*qkv, routes, 0.4).square().sum(), qkv, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), qkv)
        return *first, *second, *torch.autograd.grad(attend(*qkv, routes, 0.4), qkv, directions, is_grads_batched=True)

    for actual, expected in zip(derivatives(partial(routed_attention, backend=backend)), derivatives(loop)):
        assert_near(actual, expected, D64)


def test_forward_mode_takes_the_reference(monkeypatch):
    monkeypatch.setattr(reference, 'SMALL', 0)
    qkv, routes = inputs(regions=40)
    tangents = tuple(torch.randn_like(x) for x in qkv)

    def run(*qkv, backend=None):
        return routed_attention(*qkv, routes, backend=backend)

    with torch.no_grad(), pytest.raises(ValueError, match='chunked.*no torch.func and no forward mode'):
        torch.func.jvp(lambda *qkv: run(*qkv, backend='chunked'), tuple(qkv), tangents)
    with torch.no_grad():
        expected = torch.func.jvp(lambda *qkv: run(*qkv, backend='reference'), tuple(qkv), tangents)
        monkeypatch.setattr(masked, 'MAX_SCORES', 0)
        for actual, wanted in zip(torch.func.jvp(run, tuple(qkv), tangents), expected):
            assert_near(actual, wanted, D64)


def test_wrong_shapes_are_named():
    (query, key, value), routes = inputs()
    with pytest.raises(ValueError, match='shapes must be'):
        routed_attention(query[0], key, value, routes)
    with pytest.raises(ValueError, match='differ in B, N or D'):
        routed_attention(query[:1], key, value, routes)
    with pytest.raises(ValueError, match='routes must be int64'):
        routed_attention(query, key, value, routes.int())
    with pytest.raises(ValueError, match='weights have shape'):
        routed_attention(query, key, value, routes, weights=torch.ones(2))
    with pytest.raises(ValueError, match='no backend'):
        routed_attention(query, key, value, routes, backend='cuda')


def test_operators_of_the_dispatcher_are_sound():
    qkv, routes = inputs(dtype=torch.float32)
    checks = ('test_schema', 'test_autograd_registration', 'test_faketensor')
    torch.library.opcheck(torch.ops.attnzoo.routed_attention.default, (*qkv, routes, 0.4), test_utils=checks)


def test_gathered_keys_and_values_are_not_kept(monkeypatch):
    monkeypatch.setattr(reference, 'SMALL_TO_TRAIN', 0)
    module = BiLevelRoutingAttention(8, 2, n_win=4, topk=8, side_dwconv=0)
    x = torch.randn(1, 24, 24, 8, requires_grad=True)
    sizes = []
    with saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        module(x)
    assert masked.MAX_SCORES < 24**4
    assert sizes
    assert max(sizes) <= x.numel()


# The modules: the loop below is the two steps of the paper on a map, padding as the text of the module says.


def written_out(module, x):
    """(B, H, W, C) -> (B, H, W, C), `BiLevelRoutingAttention` of `n_win` regions, LePE and all."""
    height, width = x.shape[1:3]
    x = torch.nn.functional.pad(x, (0, 0, 0, -width % module.n_win[1], 0, -height % module.n_win[0]))
    q, k, v = module.qkv(x).chunk(3, dim=-1)
    rows, columns = (torch.arange(side).chunk(n) for side, n in zip(x.shape[1:3], module.n_win))
    places = [[(i, j) for i in r for j in c] for r in rows for c in columns]
    out = torch.empty_like(v)
    for b in range(len(x)):
        regions = [[torch.stack([m[b, i, j] for i, j in place]) for place in places] for m in (q, k, v)]
        means_q, means_k = (torch.stack([region.mean(0) for region in m]) for m in regions[:2])
        for r, scores in enumerate(means_q @ means_k.T):
            chosen = scores.argsort(descending=True)[: module.topk]
            keys, values = (torch.cat([m[s] for s in chosen]) for m in regions[1:])
            for (i, j), query in zip(places[r], regions[0][r]):
                heads = zip(*(t.chunk(module.num_heads, dim=-1) for t in (query, keys, values)))
                out[b, i, j] = torch.cat([(ks @ qs * x.shape[3] ** -0.5).softmax(0) @ vs for qs, ks, vs in heads])
    return module.proj(out + module.lepe(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))[:, :height, :width]


@pytest.mark.parametrize(('size', 'n_win'), [((6, 4), 2), ((5, 7), (2, 3)), ((1, 3), 2)])
def test_module_is_the_paper(size, n_win):
    module = BiLevelRoutingAttention(8, 2, n_win=n_win, topk=2, dtype=D64)
    x = torch.randn(2, *size, 8, dtype=D64, requires_grad=True)
    assert_same(module(x), written_out(module, x), [x, *module.parameters()])


def test_layouts_are_one_where_regions_fit():
    first, second = BiLevelRoutingAttention(8, 2, 3, 2), BiLevelRoutingAttention2d(8, 2, 3, 2)
    second.load_state_dict({k: p.reshape(second.state_dict()[k].shape) for k, p in first.state_dict().items()})
    x = torch.randn(2, 6, 9, 8)
    assert_near(second(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), first(x))


@pytest.mark.parametrize('cls', [BiLevelRoutingAttention, BiLevelRoutingAttention2d])
def test_all_regions_are_attention_over_the_map(cls):
    all_of_them, every = cls(8, 2, 3, topk=-1, dtype=D64), cls(8, 2, 3, topk=9, backend='reference', dtype=D64)
    every.load_state_dict(all_of_them.state_dict())
    every.all_of = lambda regions: False
    x = torch.randn(2, 6, 9, 8, dtype=D64) if cls is BiLevelRoutingAttention else torch.randn(2, 8, 6, 9, dtype=D64)
    assert_near(all_of_them(x), every(x), D64)


@pytest.mark.parametrize('cls', [BiLevelRoutingAttention, BiLevelRoutingAttention2d])
def test_regions_may_have_a_size_instead_of_a_number(cls):
    counted, sized = cls(8, 2, n_win=(2, 3), topk=2), cls(8, 2, region_size=(4, 3), topk=2)
    sized.load_state_dict(counted.state_dict())
    x = torch.randn(1, 8, 9, 8) if cls is BiLevelRoutingAttention else torch.randn(1, 8, 8, 9)
    assert_near(sized(x), counted(x))
    assert 'region_size=(4, 3)' in repr(sized)
    assert 'n_win=(2, 3)' in repr(counted)


@pytest.mark.parametrize(
    ('mode', 'keys'), [('avgpool', 4), ('maxpool', 4), ('ada_avgpool', 9), ('ada_maxpool', 9), ('identity', 16)]
)
def test_keys_are_pooled_inside_their_regions(mode, keys):
    module = BiLevelRoutingAttention(8, 2, 2, 2, kv_downsample_mode=mode, kv_per_win=3, kv_downsample_ratio=2)
    seen = {}
    module.attend = lambda q, k, v, routes, weights: seen.update(k=k.shape, v=v.shape) or q
    assert module(torch.randn(1, 8, 8, 8)).shape == (1, 8, 8, 8)
    assert seen == {'k': (1, 4, keys, 2, 4), 'v': (1, 4, keys, 2, 4)}


@pytest.mark.parametrize('cls', [BiLevelRoutingAttention, BiLevelRoutingAttention2d])
def test_cost(cls):
    # nine regions of 2 x 3 positions
    assert cls(8, 2, 3, topk=2).attention_macs(6, 9) == 81 * 8 + 54 * 2 * 6 * 2 * 8
    assert cls(8, 2, 3, topk=-1).attention_macs(6, 9) == 54 * 54 * 2 * 8
    pooled = BiLevelRoutingAttention(8, 2, 3, 2, kv_downsample_mode='avgpool', kv_downsample_ratio=3, qk_dim=4)
    assert pooled.attention_macs(6, 9) == 81 * 4 + 54 * 2 * (4 + 8)


def test_pooling_wider_than_a_region_takes_the_region():
    module = BiLevelRoutingAttention(8, 2, 2, 1, kv_downsample_mode='avgpool', kv_downsample_ratio=4)
    assert module(torch.randn(1, 3, 5, 8)).shape == (1, 3, 5, 8)


def test_gradients_of_the_routing():
    x = torch.randn(1, 4, 4, 8)
    for routing, learns in ((dict(diff_routing=True, param_routing=True), True), ({}, False)):
        module = BiLevelRoutingAttention(8, 2, 2, 2, soft_routing=True, **routing)
        q = torch.randn(1, 4, 4, 2, 4, requires_grad=True)
        assert module.route(q, q)[1].requires_grad is learns
        module(x).sum().backward()
        assert all(p.grad is not None for p in module.parameters())


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('side', [6, 20])
def test_traces_and_exports_without_operators_of_its_own(side):
    module, x = BiLevelRoutingAttention(8, 2, 2, 2).eval(), torch.randn(2, side, side, 8)
    expected = module(x)
    traced = torch.jit.trace(module, x)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    assert 'attnzoo' not in f'{traced.inlined_graph}{program.graph}'
    assert_near(traced(x), expected)
    assert_near(program.module()(x[:1]), expected[:1])


def test_dropout_is_for_training():
    module = BiLevelRoutingAttention(8, 2, 2, 2, attn_drop=0.5)
    x = torch.randn(1, 40, 40, 8)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(topk=0), 'topk is 0'),
        (dict(n_win=0), 'n_win must be'),
        (dict(region_size=(2, 0)), 'region_size must be'),
        (dict(side_dwconv=4), 'side_dwconv must be odd, or 0 for none, got 4'),
        (dict(backend='cuda'), "no backend 'cuda'.*chunked"),
        (dict(qk_dim=7), 'qk_dim 7 is not a multiple of num_heads 2'),
        (dict(kv_downsample_mode='fracpool'), "'fracpool'; choose one of: identity"),
        (dict(kv_downsample_mode='ada_avgpool', kv_per_win=-1), 'kv_per_win is -1'),
        (dict(kv_downsample_mode='maxpool', kv_downsample_ratio=0), 'kv_downsample_ratio is 0'),
        (dict(param_attention='none'), "'none'"),
        (dict(diff_routing=True), 'set soft_routing'),
        (dict(soft_routing=True, param_routing=True), 'set diff_routing'),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BiLevelRoutingAttention(8, 2, **options)


def dense_loop(module, x, values_of):
    """softmax(q k / sqrt(D)) v, one head at a time, and the convolution of what `values_of` gives, (B, H, W, C)."""
    q, k, v = (t.flatten(1, 2) for t in module.qkv(x).chunk(3, dim=-1))
    heads = zip(*(t.chunk(module.num_heads, dim=-1) for t in (q, k, v)))
    out = torch.cat([(a @ b.mT * a.shape[-1] ** -0.5).softmax(-1) @ c for a, b, c in heads], -1).view(x.shape)
    convolved = values_of(x, v.view(x.shape)).permute(0, 3, 1, 2)
    return module.proj(out + module.lepe(convolved).permute(0, 2, 3, 1))


def test_dense_forms_convolve_the_input_and_the_values():
    nhwc, nchw = DenseLePEAttention(8, 2, dtype=D64), DenseLePEAttention2d(8, 2, dtype=D64)
    nchw.load_state_dict({k: p.reshape(nchw.state_dict()[k].shape) for k, p in nhwc.state_dict().items()})
    x = torch.randn(2, 3, 4, 8, dtype=D64, requires_grad=True)
    assert_same(nhwc(x), dense_loop(nhwc, x, lambda x, v: x), [x, *nhwc.parameters()])
    assert_near(nchw(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), dense_loop(nhwc, x, lambda x, v: v), D64)
    assert DenseLePEAttention(8, 2, side_dwconv=0).lepe is None


TRAINED = {(16, True): 'chunked', (16, False): 'reference', (1, True): 'masked', (1, False): 'reference'}


@pytest.mark.parametrize('intel', [True, False])
@pytest.mark.parametrize(('positions', 'inferred'), [(16, 'chunked'), (1, 'reference')])
@pytest.mark.parametrize('trains', [True, False])
def test_the_choice_knows_the_processor(monkeypatch, intel, positions, inferred, trains):
    for module in (reference, masked):
        monkeypatch.setattr(module, 'is_intel', lambda: intel)
    q, k, v = (torch.randn(1, 49, positions, 4, 32, requires_grad=trains) for _ in range(3))
    routes = torch.zeros(1, 49, 1, dtype=torch.int64)
    names = {backend.run: backend.name for backend in BACKENDS}
    chosen = names[choose(BACKENDS, None, q, k, v, routes, None, 0.2, 0.0)]
    assert chosen == (TRAINED[positions, intel] if trains else inferred)

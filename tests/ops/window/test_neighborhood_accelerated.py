"""The flex and natten backends: what they compute where that can be checked without a GPU, and what they refuse."""

from types import SimpleNamespace

import pytest
import torch

from ops.window.neighborhood import flex, natten, reference
from ops.window.neighborhood.functional import make_window
from tests.ops.conftest import assert_near

CASES = {
    'plain': ((5, 9), (3,)),
    'dilated, strided, even, causal': ((9, 11), ((3, 4), (2, 1), (2, 1), (False, True))),
    'one axis': ((200,), (7, 1, 3)),
    'three axes': ((4, 5, 6), (3, 1, (1, 1, 2))),
}


def tensors(size, window, grad=False, device='cpu'):
    shapes = [(2, *size, 2, 16)] * 3 + [(2, *(2 * k - 1 for k in window.kernel_size))]
    return [torch.randn(shape, device=device).requires_grad_(grad) for shape in shapes]


@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('case', CASES)
def test_flex_neighborhood_is_the_rule(case, biased):
    """Mask, order of the positions and bias entries, on the dense scores that flex would compute block by block."""
    size, window = CASES[case]
    window = make_window(len(size), *window)
    q, k, v, bias = tensors(size, window)
    layout = flex.make_layout(size, window, q.device)
    index = torch.arange(layout.order.numel())
    seen = layout.mask.mask_mod(None, None, index[:, None], index)
    scores = torch.einsum('blnd,bmnd->bnlm', *(x.flatten(1, -3)[:, layout.order] for x in (q, k))) * 0.3
    if biased:
        scores = flex.bias_mod(bias, layout)(scores, None, torch.arange(2)[:, None, None], index[:, None], index)
    weights = scores.masked_fill(~seen, float('-inf')).softmax(-1)
    out = torch.einsum('bnlm,bmnd->blnd', weights, v.flatten(1, -3)[:, layout.order])[:, layout.places].view(q.shape)
    assert_near(out, reference.attend(q, k, v, window, 0.3, bias if biased else None, 0.0))


@pytest.mark.parametrize('case', ['plain'])
def test_flex_equals_reference_uncompiled(case):
    torch.compiler.reset()
    size, window = CASES[case]
    window = make_window(len(size), *window)
    q, k, v, bias = tensors(size, window)
    out = flex.attend(q, k, v, window, 0.3, bias, 0.0, compiled=False)
    assert_near(out, reference.attend(q, k, v, window, 0.3, bias, 0.0))


def test_blocks_of_flex_are_compact():
    """Of a 56 x 56 map a quarter of the 128 x 128 blocks is computed, whatever the dilation."""
    for dilation in (1, 2, 8):
        layout = flex.make_layout((56, 56), make_window(2, 7, 1, dilation), torch.device('cpu'))
        assert layout.mask.sparsity() > 75


CALL = dict(device=torch.device('cuda', 0), dtype=torch.float16, shape=(1, 8, 8, 2, 32), numel=lambda: 4096)


@pytest.mark.parametrize(
    ('change', 'bias', 'dropout_p', 'reason'),
    [
        (dict(device=torch.device('cpu')), None, 0.0, 'CUDA only, the query is on cpu'),
        (dict(dtype=torch.float64), None, 0.0, 'not torch.float64'),
        (dict(shape=(1, 8, 8, 2, 8)), None, 0.0, '16 to 256 channels per head, not 8'),
        (dict(numel=lambda: 0), None, 0.0, 'no empty batch'),
        ({}, None, 0.1, 'no dropout'),
        ({}, torch.zeros(2, 5, 5), 0.0, None),
    ],
)
def test_flex_says_why_not(change, bias, dropout_p, reason):
    query = SimpleNamespace(**CALL | change)
    answer = flex.why_not(query, query, query, make_window(2, 3), 1.0, bias, dropout_p)
    assert answer is None if reason is None else reason in answer


@pytest.mark.parametrize(
    ('change', 'bias', 'dropout_p', 'package', 'reason'),
    [
        (dict(device=torch.device('cpu')), None, 0.0, True, 'CUDA only, the query is on cpu'),
        ({}, torch.zeros(2, 5, 5), 0.0, True, 'no relative position bias'),
        ({}, None, 0.1, True, 'no dropout'),
        (dict(numel=lambda: 0), None, 0.0, True, 'no empty batch'),
        ({}, None, 0.0, None, 'natten is not installed'),
        ({}, None, 0.0, False, 'without its kernels'),
        (dict(dtype=torch.float64), None, 0.0, True, 'not torch.float64'),
        (dict(shape=(1, 8, 8, 2, 12)), None, 0.0, True, 'and 12'),
        ({}, None, 0.0, True, None),
    ],
)
def test_natten_says_why_not(monkeypatch, change, bias, dropout_p, package, reason):
    found = None if package is None else SimpleNamespace(HAS_LIBNATTEN=package)
    monkeypatch.setattr(natten, 'package', lambda: found)
    query = SimpleNamespace(**CALL | change)
    answer = natten.why_not(query, query, query, make_window(2, 3), 1.0, bias, dropout_p)
    assert answer is None if reason is None else reason in answer


def test_natten_is_called_by_its_own_names(monkeypatch):
    def called(query, key, value, kernel_size, stride=1, dilation=1, is_causal=False, scale=None):
        return 'na2d', kernel_size, stride, dilation, is_causal, scale

    monkeypatch.setattr(natten, 'package', lambda: SimpleNamespace(na2d=called))
    answer = natten.attend(None, None, None, make_window(2, 5, 2, (1, 3), True), 0.3, None, 0.0)
    assert answer == ('na2d', (5, 5), (2, 2), (1, 3), (True, True), 0.3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('case', CASES)
def test_flex_equals_reference_on_cuda(case):
    size, window = CASES[case]
    window = make_window(len(size), *window)
    leaves = tensors(size, window, grad=True, device='cuda')
    results = []
    for run in (flex.attend, reference.attend):
        out = run(*leaves[:3], window, 0.3, leaves[3], 0.0)
        results.append([out, *torch.autograd.grad(out, leaves, torch.ones_like(out))])
    for actual, expected in zip(*results):
        assert_near(actual, expected, torch.float16)  # tensor cores round float32 products


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or natten.package() is None or not natten.package().HAS_LIBNATTEN,
    reason='needs a CUDA device and natten with its kernels',
)
@pytest.mark.parametrize('case', CASES)
def test_natten_equals_reference_on_cuda(case):
    size, window = CASES[case]
    window = make_window(len(size), *window)
    q, k, v, _ = tensors(size, window, device='cuda')
    assert_near(
        natten.attend(q, k, v, window, 0.3, None, 0.0), reference.attend(q, k, v, window, 0.3, None, 0.0), torch.float16
    )

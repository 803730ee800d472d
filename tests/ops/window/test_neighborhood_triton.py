"""The triton backend: its kernels in Triton's interpreter, or on the device where there is one (tests/conftest.py)."""

import os
import subprocess
import sys
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from ops.window.neighborhood import na2d, reference, triton
from ops.window.neighborhood.functional import make_window
from tests.ops.conftest import assert_near
from tests.ops.window.test_neighborhood import assert_agrees, inputs

pytestmark = pytest.mark.skipif(not triton.INSTALLED, reason='needs triton')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
CASES = {  # map, window, and how the inputs differ from the usual ones
    'whole map': ((7, 7), (7,), dict(batch=2, width=8)),
    'odd map': ((13, 19), (7,), dict(heads=1, width=32)),
    'borders that see further': ((7, 22), (7,), dict(heads=1, width=8)),
    'ragged groups': ((7, 20), ((3, 5), 1, (2, 3)), dict(heads=1, width=24, contiguous=True)),
    'even': ((8, 12), ((4, 6), 1, (2, 1)), dict(heads=1, width=5)),
    'one axis': ((70,), (7, 1, 3), dict(width=64)),
    'large kernel': ((13, 14), (13,), dict(heads=1, width=8)),
    'one position wide': ((9, 1), ((3, 1),), dict(width=8)),
    'no bias': ((9, 17), (5,), dict(width=8, biased=False)),
    'float16': ((7, 12), (5,), dict(width=32, dtype=torch.float16)),
    'bfloat16': ((7, 12), (5,), dict(width=32, dtype=torch.bfloat16)),
    'bfloat16, no bias': ((9, 9), (3, 1, 2), dict(width=64, dtype=torch.bfloat16, biased=False)),
}


def leaves_of(size, window, contiguous=False, **options):
    """`inputs` on the device, slices of one tensor as a module has them."""
    leaves = inputs(size, window, contiguous=contiguous, **options)
    return [x.detach().to(DEVICE).requires_grad_() for x in leaves]


@pytest.mark.parametrize('case', CASES)
def test_equals_reference(case):
    size, window, options = CASES[case]
    window = make_window(len(size), *window)
    assert_agrees(triton.attend, leaves_of(size, window, **options), window)


@pytest.mark.parametrize('wanted', [0, 1, 2, 3])
def test_one_gradient_alone_from_an_expanded_one(wanted):
    window = make_window(2, 3)
    leaves = leaves_of((5, 9), window, heads=1)
    for i, leaf in enumerate(leaves):
        leaf.requires_grad_(i == wanted)
    grads = []
    for run in (triton.attend, reference.attend):
        leaves[wanted].grad = None
        out = run(*leaves[:3], window, 1.0, leaves[3], 0.0)
        out.select(1, 2).sum((0, 1, 2))[1].backward()
        grads.append(leaves[wanted].grad)
    assert_near(*grads)


def test_bias_may_have_another_dtype():
    window = make_window(2, 3)
    *qkv, bias = leaves_of((5, 6), window, heads=1, dtype=torch.float16)
    bias = bias.detach().float().requires_grad_()
    out = na2d(*qkv, 3, rel_pos_bias=bias, backend='triton')
    assert out.dtype == torch.float16
    assert_near(out, na2d(*(x.double() for x in qkv), 3, rel_pos_bias=bias.double()), torch.float16)
    assert torch.autograd.grad(out.sum(), bias)[0].dtype == torch.float32


def test_training_keeps_inputs_output_and_sums():
    window = make_window(2, 3)
    leaves = leaves_of((5, 6), window)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        out = triton.attend(*leaves[:3], window, 0.2, leaves[3], 0.0)
    kept = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in saved}
    expected = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in (*leaves, out)}
    sums = 4 * out.numel() // out.shape[-1]
    assert sum(kept.values()) == sum(expected.values()) + sums


def test_is_a_custom_op():
    """Schema, fake tensors, autograd, and tracing for fixed and for any sizes."""
    leaves = leaves_of((3, 5), make_window(2, 3), heads=1)
    torch.library.opcheck(triton.forward, (*leaves, [3, 3], [1, 1], 0.5))


def test_compiles_without_graph_break():
    torch.compiler.reset()
    compiled = torch.compile(na2d, fullgraph=True, backend='aot_eager')
    leaves = leaves_of((5, 6), make_window(2, 3))
    results = []
    for run in (compiled, na2d):
        out = run(*leaves[:3], 3, rel_pos_bias=leaves[3], backend='triton')
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for actual, expected in zip(*results):
        assert_near(actual, expected)


@pytest.mark.parametrize('sums_pairs', [False, True])
def test_tiles_suit_the_kernels(sums_pairs):
    """Powers of two, and products of 16 terms or more, which is the least that tensor cores take."""
    for kernel_size in product((1, 3, 7, 8, 13, 32), repeat=2):
        for slots in product((1, 5, 14, 56, 300), repeat=2):
            tiles = triton.cut(slots, kernel_size, sums_pairs)
            assert tiles.height * tiles.width == triton.TILE
            assert tiles.rows * tiles.columns == triton.CHUNK
            assert tiles.columns * tiles.across >= min(slots[1], tiles.width + kernel_size[1] - 1)
            if sums_pairs:
                assert min(tiles.height * tiles.rows, tiles.width * tiles.columns) >= 16
                assert max(tiles.height * tiles.rows, tiles.width * tiles.columns) <= 256


CALL = dict(device=torch.device('cuda', 0), dtype=torch.float16, shape=(1, 8, 8, 2, 128), numel=lambda: 16384)


@pytest.mark.parametrize(
    ('change', 'window', 'options', 'reason'),
    [
        (dict(device=torch.device('cpu')), (2, 3), {}, 'CUDA only, the query is on cpu'),
        (dict(dtype=torch.float64), (2, 3), {}, 'not torch.float64'),
        (dict(dtype=torch.float32), (2, 3), {}, 'at most 64 channels per head of torch.float32, not 128'),
        ({}, (3, 3), {}, 'not three'),
        ({}, (2, 3, 2), {}, 'neither strides nor causal'),
        ({}, (2, 3, 1, 1, (True, False)), {}, 'neither strides nor causal'),
        ({}, (1, 33), {}, 'at most 32 keys along an axis, not 33'),
        (dict(shape=(1 << 15, 8, 8, 2, 32)), (2, 3), {}, 'at most 65535 heads of all images together, not 65536'),
        (dict(numel=lambda: 0), (2, 3), {}, 'no empty batch'),
        ({}, (2, 3), dict(scale=0.0), 'a positive scale, not 0.0'),
        ({}, (2, 3), dict(dropout_p=0.1), 'no dropout'),
        ({}, (2, 3, 1, 2), {}, None),
    ],
)
def test_says_why_not(monkeypatch, change, window, options, reason):
    monkeypatch.setattr(triton, 'INTERPRETED', False)
    query = SimpleNamespace(**CALL | change)
    options = dict(scale=1.0, bias=None, dropout_p=0.0) | options
    answer = triton.why_not(query, query, query, make_window(*window), **options)
    assert answer is None if reason is None else reason in answer


def run_python(*arguments, cache=None):
    environment = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    if cache is not None:
        environment['TRITON_CACHE_DIR'] = str(cache)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ops_need_no_triton():
    program = """
import sys
sys.modules['triton'] = None
from ops.window.neighborhood import triton
print(triton.why_not(*[None] * 7))
"""
    assert 'triton is not installed' in run_python('-c', program)


def test_kernels_compile_for_cuda(tmp_path):
    printed = run_python('-m', 'tests.ops.window.compile_for_cuda', cache=tmp_path)
    assert len(printed.splitlines()) == 6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ('size', 'window', 'width'),
    [
        ((56, 56), (7,), 32),
        ((57, 83), (7, 1, 8), 32),
        ((112, 90), (13, 1, (2, 3)), 64),
        ((64, 65), ((3, 32),), 16),
        ((5000,), (31, 1, 7), 40),
    ],
)
def test_equals_reference_on_cuda(size, window, width, dtype, biased):
    window = make_window(len(size), *window)
    leaves = leaves_of(size, window, batch=2, heads=3, width=width, dtype=dtype, biased=biased)
    assert_agrees(triton.attend, leaves, window)

"""Candidates by their names, and what they cost."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ops._backends import Backend
from zoo.benchmark.case import Case, measure
from zoo.benchmark.choice import choice, choices
from zoo.benchmark.floor import Rates
from zoo.benchmark.models import make_model, model_work, own_side
from zoo.benchmark.names import parse
from zoo.benchmark.operators import Map, operator_work
from zoo.benchmark.peers import axis, block_mask, gather
from zoo.benchmark.timing import Rounds
from zoo.benchmark.work import FORWARD, TRAINING, Setting, Work

SMALL = Map(6, 5, 2, 4)
QUICK = Rounds(2, 2, sample_seconds=0)


@pytest.fixture(autouse=True)
def _rates(monkeypatch):
    monkeypatch.setattr('zoo.benchmark.case.machine_rates', lambda *_: Rates(1e9, 1e9))


def test_candidates_are_names_with_options():
    assert parse('sdpa') == ('sdpa', {})
    assert parse(' na2d(kernel_size=(7, 5), backend="blocked") ') == (
        'na2d',
        {'kernel_size': (7, 5), 'backend': 'blocked'},
    )
    assert parse('timm:vit-x.y(a=-1)') == ('timm:vit-x.y', {'a': -1})


@pytest.mark.parametrize('text', ['', 'a(', 'a(7)', 'a(b=open)', 'a(b=1)c', 'a(**{"b": 1})', '(b=1)', 'a(b=f())'])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match='a candidate is NAME'):
        parse(text)


def test_maps_are_written_as_numbers():
    assert Map.parse('56x28x2') == Map(56, 28, 2)
    assert str(Map.parse('56x28x2x64')) == '56x28, 2 heads x 64'
    for text in ('56x56', '0x1x1', '56x56xtwo', '1x1x1x1x1'):
        with pytest.raises(ValueError, match='HEIGHTxWIDTHxHEADS'):
            Map.parse(text)


@pytest.mark.parametrize(
    ('candidate', 'macs'),
    [
        ('sdpa', 2 * 30 * 30 * 8),
        ('na2d(kernel_size=3)', 2 * 30 * 9 * 8),
        ('na2d(kernel_size=3, bias=True)', 2 * 30 * 9 * 8),
        ('gather(kernel_size=3)', 2 * 30 * 9 * 8),
        ('routed(topk=1, n_win=1)', 2 * 30 * 30 * 8),
        ('na(kernel_size=3)', 2 * 30 * 9 * 8 + 30 * 4 * 8 * 8),
        ('attention', 2 * 30 * 30 * 8 + 30 * 4 * 8 * 8),
        ('se(reduction=2)', 2 * 8 * 4),
    ],
)
def test_operators_know_their_multiply_adds(candidate, macs):
    work = operator_work(candidate, SMALL, 2, Setting())
    assert work.macs == 2 * macs
    assert work.infer().numel() == 2 * 30 * 8
    gradients = work.task(TRAINING)()
    assert len(gradients) == len(work.learned)
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize(
    ('candidate', 'message'),
    [
        ('softmax', "no operator 'softmax'"),
        ('na2d(kernel=3)', 'no option kernel'),
        ('na(kernel=3)', 'no option kernel'),
    ],
)
def test_unknown_operators_are_refused(candidate, message):
    with pytest.raises(ValueError, match=message):
        operator_work(candidate, SMALL, 1, Setting())


def test_kernels_of_others_are_not_compiled_again(monkeypatch):
    monkeypatch.setattr(torch, 'compile', lambda call, **_: 'compiled')
    calls = [operator_work(name, SMALL, 1, Setting(compiled=True)).call for name in ('sdpa', 'se(reduction=2)', 'flex')]
    assert calls[:2] == ['compiled', 'compiled']
    assert calls[2] != 'compiled'


def test_only_training_gives_inputs_that_want_gradients():
    seen = []

    def call(x):
        seen.append(x.requires_grad)
        return x * 2

    x = torch.ones(3, requires_grad=True)
    work = Work(call, [x], [x])
    for mode, wanted in ((FORWARD, {False}), (TRAINING, {True})):
        seen.clear()
        work.task(mode)()
        assert set(seen) == wanted


def test_bytes_are_counted_once():
    x = torch.ones(10, requires_grad=True)
    work = Work(lambda a, b: a * b, [x, x], [x, torch.ones(5, requires_grad=True)])
    assert (work.input_bytes, work.read_bytes) == (80, 60)


def test_mask_of_flex_is_the_neighborhood():
    group, slot, start, end = axis(7, 3, 2, torch.device('cpu'))
    assert group.tolist() == [0, 1] * 3 + [0]
    assert list(zip(slot.tolist(), start.tolist(), end.tolist()))[:4] == [(0, 0, 3), (0, 0, 3), (1, 0, 3), (1, 0, 3)]
    q, k, v = (torch.randn(1, 6, 8, 2, 16) for _ in range(3))
    position = torch.arange(48)
    seen = block_mask(6, 8, 3, 2, q.device).mask_mod(None, None, position[:, None], position)
    heads = [x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)]
    x = scaled_dot_product_attention(*heads, seen).transpose(1, 2).reshape(q.shape)
    torch.testing.assert_close(x, gather(kernel_size=3, dilation=2)(q, k, v))


def test_models_of_timm_and_ours():
    assert own_side('timm:test_vit') == 160
    work = model_work('nat_pico', 32, 2, TRAINING, Setting())
    assert work.infer().shape == (2, 10)
    assert work.call.training
    assert work.macs > 0
    assert not model_work('timm:test_resnet(num_classes=3)', 32, 1, FORWARD, Setting()).call.training
    with pytest.raises(ValueError, match='unknown model'):
        model_work('nat_pcio', 32, 1, FORWARD, Setting())


def test_windows_of_timm_keep_their_size_in_larger_images():
    model = make_model('timm:swin_tiny_patch4_window7_224(depths=(1, 1, 1, 1))', 256)
    assert {block.window_size for stage in model.layers for block in stage.blocks} == {(7, 7)}
    assert model.patch_embed.img_size == (256, 256)


@pytest.mark.parametrize('bad', [dict(dtype='float8'), dict(device='cuda')])
def test_impossible_settings_are_refused(bad):
    if bad.get('device') == 'cuda' and torch.cuda.is_available():
        pytest.skip('there is a CUDA device')
    with pytest.raises(ValueError, match='dtype must|no CUDA'):
        Setting(**bad)


def test_a_case_is_a_row_for_every_candidate():
    def broken():
        raise ValueError('not today\nnor tomorrow')

    x = torch.ones(100, 100, requires_grad=True)
    works = {
        'once': lambda: Work(lambda a: a * 2, [x], [x], macs=10**6),
        'twice': lambda: Work(lambda a: (a * 2).exp(), [x], [x]),
        'broken': broken,
    }
    case = Case('a', 'b', TRAINING, Setting(), 4, (3, 5), works, baselines={'once': 'twice'})
    once, twice, refused = measure(case, QUICK)
    assert (once.baseline, twice.baseline, refused.baseline) == ('twice', 'once', 'once')
    assert once.seconds_low <= once.seconds <= once.seconds_high
    assert once.per_second == pytest.approx(4 / once.seconds)
    assert once.held_bytes == pytest.approx(x.nbytes, rel=0.01)
    assert once.peak_bytes == pytest.approx(2 * x.nbytes, rel=0.01)
    assert once.memory_inputs == once.peak_bytes / x.nbytes
    assert once.memory_ratio == pytest.approx(once.peak_bytes / twice.peak_bytes)
    assert (once.moved_bytes, once.floor_seconds) == (3 * x.nbytes + 2 * x.nbytes, pytest.approx(3e-3))
    assert (twice.macs, twice.floor_ratio) == (None, None)
    case = Case('a', 'b', TRAINING, Setting(), 4, (3, 5), works, memory_baseline='twice')
    assert [row.memory_ratio for row in measure(case, QUICK)] == [0.0, 1.0, None]
    assert (refused.note, refused.seconds, refused.rounds) == ('not today', None, None)


def test_the_chosen_backend_is_the_baseline():
    def refuse(*_):
        return 'never'

    backends = [Backend('first', lambda x: x, refuse), Backend('second', lambda x: x * 2, lambda *_: None)]
    call = (torch.ones(3, requires_grad=True),)
    case = choice('na2d: small', backends, call, TRAINING, Setting(), 1, SMALL)
    second, first = measure(case, QUICK)
    assert (second.candidate, second.baseline, first.note) == ('second', 'second', 'never')


@pytest.mark.parametrize('mode', [FORWARD, TRAINING])
def test_a_choice_is_made_in_its_mode(mode):
    backends = [
        Backend(FORWARD, lambda x: x, lambda _: None, lambda _: not torch.is_grad_enabled()),
        Backend(TRAINING, lambda x: x, lambda _: None),
    ]
    assert next(iter(choice('na2d: small', backends, (torch.ones(1),), mode, Setting(), 1, SMALL).candidates)) == mode


def test_every_choice_can_run():
    for case in choices(Setting(), (FORWARD,), maps=['7x7x1x8']):
        next(iter(case.candidates.values()))().task(FORWARD)()

import time

import pytest
import torch

from zoo import measure

CPU = torch.device('cpu')


def test_tasks_take_turns():
    calls = []
    tasks = {name: lambda name=name: calls.append(name) for name in 'ab'}
    samples = measure.interleave(tasks, CPU, rounds=3, min_seconds=0)
    assert {name: len(found) for name, found in samples.items()} == {'a': 3, 'b': 3}
    assert ''.join(calls) == 'aabb' + 'ab' * 3


def test_seconds_are_per_call():
    samples = measure.interleave({'nap': lambda: time.sleep(0.002)}, CPU, rounds=3, min_seconds=0.01)
    assert all(0.002 <= seconds < 0.02 for seconds in samples['nap'])


def test_ratio_is_taken_round_by_round():
    spread = measure.ratio([2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 2.0, 2.0, 2.0, 2.0])
    assert (spread.low, spread.median, spread.high) == (2.0, 3.0, 4.0)
    assert measure.Spread.of([3.0]) == measure.Spread(3.0, 3.0, 3.0)
    with pytest.raises(ValueError, match='zip'):
        measure.ratio([1.0], [1.0, 2.0])


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match='rounds'):
        measure.interleave({}, CPU, rounds=0)


def test_peak_memory_counts_what_is_held_at_once(capfd):
    x = torch.zeros(1000, 1000)

    def task():
        y = x * 2
        z = y + 1
        del y
        return (z @ z).sum()

    assert measure.peak_memory(task, CPU) == pytest.approx(2 * x.numel() * 4, rel=0.01)
    assert capfd.readouterr() == ('', '')


def test_peak_memory_holds_activations_for_the_backward_pass():
    x = torch.zeros(500, 500, requires_grad=True)
    forward = measure.peak_memory(lambda: x.detach().exp().exp().exp().sum(), CPU)
    both = measure.peak_memory(lambda: torch.autograd.grad(x.exp().exp().exp().sum(), x), CPU)
    assert forward == pytest.approx(2 * x.numel() * 4, rel=0.01)
    assert both >= 4 * x.numel() * 4


def test_peak_memory_knows_its_devices():
    with pytest.raises(ValueError, match='not on meta'):
        measure.peak_memory(lambda: None, torch.device('meta'))


def test_device_has_a_name():
    assert measure.device_name(CPU)

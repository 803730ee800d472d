import time

import pytest
import torch

from zoo.benchmark.timing import Rounds, Spread, interleave, ratio

CPU = torch.device('cpu')


class FakeTime:
    """Tasks that take as long as they are said to, and the clock that says so."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def clock(self):
        return self.now

    def task(self, name, seconds):
        """Takes the next of `seconds`, again and again."""
        durations = iter(())

        def run():
            nonlocal durations
            self.calls.append(name)
            step = next(durations, None)
            if step is None:
                durations = iter(seconds)
                step = next(durations)
            self.now += step

        return run


def test_tasks_take_turns():
    fake = FakeTime()
    tasks = {name: fake.task(name, [1.0]) for name in 'ab'}
    samples = interleave(tasks, CPU, Rounds(3, 3, sample_seconds=0), fake.clock)
    assert samples == {'a': [1.0] * 3, 'b': [1.0] * 3}
    assert ''.join(fake.calls) == 'aabb' + 'ab' * 3


def test_calls_fill_a_sample():
    fake = FakeTime()
    samples = interleave({'a': fake.task('a', [0.25])}, CPU, Rounds(2, 2, sample_seconds=1), fake.clock)
    assert samples == {'a': [0.25, 0.25]}
    assert len(fake.calls) == 2 + 2 * 4


@pytest.mark.parametrize(
    ('rounds', 'seconds', 'expected'),
    [
        (Rounds(5, 50, sample_seconds=0), [2.0], 5),  # known at once
        (Rounds(5, 50, seconds=1000, sample_seconds=0), [1.0, 3.0], 50),  # never known
        (Rounds(5, 50, seconds=40, sample_seconds=0), [1.0, 3.0], 14),  # time is up
        (Rounds(5, 50, seconds=0, sample_seconds=0), [1.0, 3.0], 5),  # but not before `at_least`
        (Rounds(5, 50, precision=0.3, sample_seconds=0), [1.0, 3.0], 12),  # the error of the median has shrunk to it
    ],
)
def test_rounds_end_when_the_ratio_is_known_or_the_time_is_up(rounds, seconds, expected):
    fake = FakeTime()
    tasks = {'a': fake.task('a', [1.0]), 'b': fake.task('b', seconds)}
    assert len(interleave(tasks, CPU, rounds, fake.clock)['b']) == expected


@pytest.mark.parametrize('bad', [dict(at_least=0), dict(at_least=9, at_most=8), dict(precision=-1), dict(seconds=-1)])
def test_impossible_rounds_are_refused(bad):
    with pytest.raises(ValueError, match='must'):
        Rounds(**bad)


def test_seconds_are_per_call():
    samples = interleave({'nap': lambda: time.sleep(0.002)}, CPU, Rounds(3, 3, sample_seconds=0.01))
    assert all(seconds >= 0.002 for seconds in samples['nap'])


def test_ratio_is_taken_round_by_round():
    spread = ratio([2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 2.0, 2.0, 2.0, 2.0])
    assert (spread.low, spread.median, spread.high) == (2.0, 3.0, 4.0)
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
    with pytest.raises(ValueError, match='zip'):
        ratio([1.0], [1.0, 2.0])

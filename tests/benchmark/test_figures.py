"""What is computed from measurements: exponents, floors, shares, and what is reached."""

import pytest
import torch

from zoo.benchmark import suites
from zoo.benchmark.choice import SUITE, share_of_right
from zoo.benchmark.floor import Rates, floor_seconds, machine_rates, moved_bytes
from zoo.benchmark.growth import exponent
from zoo.benchmark.machine import origin
from zoo.benchmark.names import parse
from zoo.benchmark.rows import COLUMNS, Row, Table, Target, read_records, record_of
from zoo.benchmark.run import cases_of, faster_than_authors, growth
from zoo.benchmark.work import FORWARD, MODES, TRAINING, Setting

HERE = origin(torch.device('cpu'), 'attnzoo benchmark')


def recorded(**values):
    return record_of(Row(**{'suite': 'a', 'case': 'b', 'candidate': 'c', **values}), HERE)


def test_exponent_of_a_power():
    sides = [224, 384, 512, 1024]
    pixels = [side**2 for side in sides]
    assert exponent(pixels, [3e-6 * p for p in pixels]) == pytest.approx(1)
    assert exponent(pixels, [p**2 for p in pixels]) == pytest.approx(2)
    assert exponent([1, 10, 100], [1, 20, 100]) == pytest.approx(1)


@pytest.mark.parametrize(('pixels', 'costs'), [([], []), ([4, 4], [1, 1]), ([1, 2], [1]), ([1, 2], [0, 1])])
def test_exponent_of_nothing_is_refused(pixels, costs):
    with pytest.raises(ValueError, match='size'):
        exponent(pixels, costs)


def test_floor_is_the_larger_of_products_and_copies():
    rates = Rates(macs=100.0, bytes=10.0)
    assert floor_seconds(1000, 10, FORWARD, rates) == 10
    assert floor_seconds(1000, 1000, FORWARD, rates) == 100
    assert floor_seconds(1000, 10, TRAINING, rates) == 30
    assert moved_bytes(5, 2, FORWARD) == 7
    assert moved_bytes(5, 2, TRAINING) == 19


def test_machine_rates_are_measured_once(monkeypatch):
    calls = []
    monkeypatch.setattr('zoo.benchmark.floor.best_of', lambda task, device: calls.append(task) or 1.0)
    machine_rates.cache_clear()
    assert machine_rates('cpu', 'bfloat16', 1) is machine_rates('cpu', 'bfloat16', 1)
    assert machine_rates('cpu', 'bfloat16', 1) == Rates(2048.0**3, 2.0 * (1 << 28))
    assert len(calls) == 2
    machine_rates.cache_clear()


def test_targets_are_bounds_of_columns():
    row = Row('a', 'b', 'c', ratio=0.5, memory_inputs=9.0)
    row.judge([Target('ratio', 0.5), Target('memory_inputs', 8), Target('value', 1, at_least=True)])
    assert row.target == 'ratio <= 0.5; memory_inputs <= 8; value >= 1'
    assert row.missed == 'memory_inputs; value'
    row.judge([Target('ratio', 0.5)])
    assert row.missed == '-'
    row.judge([])
    assert (row.target, row.missed) == ('', '')


def test_rows_come_back_from_their_file(tmp_path):
    table = Table(tmp_path / 'a.csv')
    table.add([Row('a', 'b', 'c', seconds=1 / 3, compiled=True)], HERE)
    (found,) = read_records(tmp_path / 'a.csv')
    assert tuple(found) == COLUMNS
    assert (found['seconds'], found['ratio'], found['compiled'], found['command']) == (
        '0.333333',
        '',
        'True',
        'attnzoo benchmark',
    )


def test_a_file_is_gone_on_with(tmp_path):
    Table(tmp_path / 'a.csv').add([Row('a', 'b', 'c'), Row('a', 'b', 'd')], HERE)
    table = Table(tmp_path / 'a.csv', resume=True)
    assert table.has(Row('a', 'b', 'c'), HERE.threads)
    assert not table.has(Row('a', 'b', 'c'), HERE.threads + 1)
    assert not table.has(Row('a', 'b', 'c', mode=FORWARD), HERE.threads)
    table.add([Row('a', 'b', 'c', seconds=1.0)], HERE)
    assert [(r['candidate'], r['seconds']) for r in read_records(tmp_path / 'a.csv')] == [('d', ''), ('c', '1')]
    Table(tmp_path / 'a.csv').add([Row('a', 'e', 'c')], HERE)
    assert len(read_records(tmp_path / 'a.csv')) == 1


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / 'a.csv').write_text('model,seconds\n')
    with pytest.raises(ValueError, match='no benchmark of this version'):
        Table(tmp_path / 'a.csv', resume=True)


def test_growth_of_each_candidate():
    records = [
        recorded(mode=FORWARD, height=side, width=side, batch=1, seconds=side**power, candidate=name)
        for name, power in (('linear', 2), ('quadratic', 4))
        for side in (32, 64, 128)
    ]
    linear, quadratic = growth(records, 'a', bound=1.1)
    assert (linear.candidate, linear.value, linear.missed) == ('linear', pytest.approx(1), '-')
    assert (quadratic.value, quadratic.missed) == (pytest.approx(2), 'value')
    assert linear.case == 'exponent in pixels, 32x32 to 128x128, batch 1'
    assert growth(records[:1], 'a') == []
    for record, heads in zip(records, (1, 2, 4)):
        record['case'] = f'a map, {heads} heads x 32, batch 1'
    assert [row.candidate for row in growth(records, 'a')] == ['quadratic']


def test_speed_up_over_the_authors_needs_every_model():
    records = [
        recorded(suite='authors', candidate=name, mode=mode, ratio=ratio)
        for name in suites.AUTHORS
        for mode, ratio in zip(MODES, (0.25, 1))
    ]
    (row,) = faster_than_authors(records, Setting())
    assert (row.value, row.missed) == (pytest.approx(2), '-')
    assert faster_than_authors(records[1:], Setting()) == []


def test_every_model_is_compared_with_the_authors_or_timms():
    comparisons = [comparison for comparison in suites.SUITES['authors'] if isinstance(comparison.size, int)]
    assert [comparison.candidates[1] for comparison in comparisons] == list(suites.AUTHORS)
    for comparison in comparisons:
        theirs, _ = parse(comparison.candidates[0])
        kind, _, rest = theirs.partition(':')
        assert (kind, rest.count(':')) in (('authors', 2), ('timm', 0))


def test_a_choice_is_right_when_nothing_is_much_faster():
    ratios = {'1': (1, 2), '2': (1, 0.97), '3': (1, 0.5)}
    records = [
        recorded(suite=SUITE, case=f'na2d: {case}', candidate=str(i), ratio=float(ratio))
        for case, found in ratios.items()
        for i, ratio in enumerate(found)
    ]
    (row,) = share_of_right(records)
    assert (row.value, row.missed) == (pytest.approx(2 / 3), 'value')
    assert (row.case.partition(' of')[0], row.note) == ('na2d: share', '3 cases')


@pytest.mark.parametrize('name', suites.SUITES)
def test_every_target_is_of_a_candidate_and_a_column(name):
    for case in cases_of(name, suites.SUITES[name], Setting()):
        assert case.targets.keys() | case.baselines.keys() | {*case.baselines.values()} <= case.candidates.keys()
        assert case.memory_baseline in (None, *case.candidates)
        row = next(iter(case.rows().values()))
        assert all(hasattr(row, target.column) for targets in case.targets.values() for target in targets)

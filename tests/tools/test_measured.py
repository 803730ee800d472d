"""The tables of benchmarks, from files of a few rows."""

from dataclasses import replace

import pytest
import torch

from tools import _measured
from zoo.benchmark.machine import origin
from zoo.benchmark.rows import Row, Table, Target
from zoo.benchmark.suites import AUTHORS
from zoo.benchmark.work import FORWARD, MODES, TRAINING


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes rows to one of the files that the tables are made of."""
    monkeypatch.setattr(_measured, 'FOLDER', tmp_path)
    here = origin(torch.device('cpu'), 'attnzoo benchmark --seconds 8 --rounds 3 9')

    def to(name, *rows, machine='A'):
        path = tmp_path / f'{name}.csv'
        path.parent.mkdir(exist_ok=True)
        Table(path).add(rows, replace(here, machine=machine))

    return to


def filled(table):
    columns, rows = _measured.TABLES[table]()
    rows = [list(row) for row in rows]
    assert all(len(row) == len(columns) for row in rows)
    return rows


def judged(ratio, bound, **values):
    row = Row(**{'suite': 'models', 'case': 'a', 'ratio': ratio, 'seconds': 1.0, **values})
    row.judge([Target('ratio', bound)])
    return row


def test_speed_is_beside_the_authors(write):
    for suite, ratio in (('models', 0.5), ('authors', 0.25)):
        write(suite, *(Row(suite, name, name, mode=mode, ratio=ratio) for name in AUTHORS for mode in MODES))
    assert filled('speed')[0] == ['`nat_mini`', '0.50', '0.50', '4.00', '4.00']


def test_mixers_are_beside_the_authors(write):
    case, theirs = '7x7, 1 heads x 32, batch 8: na', 'authors:natten:NA'
    write(
        'authors',
        Row('authors', 'images', 'nat_mini', 'authors:a', mode=FORWARD, seconds=1.0, ratio=0.5),
        *(
            Row('authors', case, name, theirs, mode=mode, seconds=seconds, ratio=seconds / 0.2)
            for mode in MODES
            for name, seconds in ((theirs, 0.2), ('na', 0.1))
        ),
    )
    columns, rows = _measured.TABLES['mixers']()
    assert list(rows) == [['7x7, 1 heads x 32, batch 8', '`na`', *('200', '100', '2.00') * 2]]
    assert len(columns) == 8


def test_targets_reached_and_missed(write):
    write('na', judged(0.9, 1.0, candidate='nat_mini', mode=FORWARD, floor_ratio=2.0))
    share = Row('choice', 'share of right choices', 'na2d', value=0.9)
    share.judge([Target('value', 0.95, at_least=True)])
    write('choice', share)
    write(
        'models',
        judged(0.9, 1.0, candidate='nat_mini', mode=FORWARD, floor_ratio=2.0),
        judged(1.25, 1.0, candidate='nat_mini', mode=TRAINING, floor_ratio=3.0),
        Row('models', 'a', 'sdpa', mode=TRAINING, seconds=1.0),
    )
    write('authors', judged(1.25, 1.0, suite='authors', candidate='nat_mini', mode=FORWARD))
    write('epyc/na', judged(1.5, 1.0, suite='na', candidate='na', case='7x7, batch 1', mode=FORWARD), machine='B')
    assert filled('missed') == [
        ['na', 'B', '`na`, 7x7, batch 1, forward', '1.500', '<= 1', None, None],
        ['models', 'A', '`nat_mini`, forward+backward', '1.250', '<= 1', '2.41', '3.000'],
        ['authors', 'A', '`nat_mini`, forward', '1.250', '<= 1', '1', None],
        ['choice', 'A', '`na2d`', '0.900', '>= 0.95', None, None],
    ]
    assert _measured.reached()[0] == ('suite', 'A', 'B')
    options = '`--seconds 8 --rounds 3 9`'
    assert filled('reached') == [
        ['`na`', f'[1 of 1](na.csv), {options}', f'[0 of 1](epyc/na.csv), {options}'],
        ['`models`', f'[1 of 2](models.csv), {options}', None],
        ['`authors`', f'[0 of 1](authors.csv), {options}', None],
        ['`choice`', f'[0 of 1](choice.csv), {options}', None],
    ]


def test_sizes_with_their_exponent(write):
    rows = [Row('model', str(side), 'a', height=side, per_second=1e3 / side, ratio=0.5) for side in (448, 224)]
    write('sizes', *rows, Row('model', 'exponent', 'a', value=1.0))
    assert _measured.sizes()[0] == ('model', '224', '448', 'exponent')
    assert filled('sizes') == [['`a`', '4.46, 0.50', '2.23, 0.50', '1.00']]


def test_ratios_in_each_mode(write):
    rows = [Row('model', 'a', 'b', mode=mode, seconds=1.0, per_second=12.34, ratio=0.5) for mode in MODES]
    write('bfloat16', *rows, Row('model', 'a', 'c', mode=FORWARD, note='not today'))
    assert _measured.TABLES['bfloat16']()[0] == ('model', *MODES)
    assert filled('bfloat16') == [['`b`', '12.3, 0.50', '12.3, 0.50']]


def test_peers_beside_ours(write):
    seconds = dict(zip(_measured.PEERS.values(), (0.2, 0.1, 0.12, 0.4, 3.0)))
    write('peers', *(Row('op', 'a map', name, seconds=time) for name, time in seconds.items()))
    assert filled('peers') == [['a map', '200', '100', '120', '400, 4.0', '3000, 30.0']]

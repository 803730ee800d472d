from itertools import islice

import pytest
import torch

from zoo.benchmark.machine import origin
from zoo.benchmark.plots import (
    draw_accuracy,
    draw_all,
    draw_beside_authors,
    draw_resolution,
    quoted_accuracy,
    styles,
)
from zoo.benchmark.rows import Row, is_compared, record_of
from zoo.benchmark.work import MODES

pytest.importorskip('matplotlib')


def records(names, sides=(224, 448), modes=MODES):
    here = origin(torch.device('cpu'), '')
    rows = [
        Row('model', str(side), name, mode=mode, batch=4, height=side, width=side, seconds=side**2 / 1e6)
        for side in sides
        for name in names
        for mode in modes
    ]
    for row in rows:
        row.per_second, row.peak_bytes = 4 / row.seconds, row.height**2
    return [record_of(row, here) for row in rows]


def test_throughput_and_memory_over_resolution():
    throughput, memory = draw_resolution(records(['nat_mini', 'nat_tiny'], modes=['forward'])).axes
    assert [line.get_label() for line in throughput.lines] == ['nat_mini', 'nat_tiny']
    assert list(memory.lines[0].get_xdata()) == [224, 448]
    assert list(memory.lines[0].get_ydata()) == pytest.approx([224**2 / 2**20, 448**2 / 2**20])


def test_accuracy_is_quoted_at_the_measured_size():
    small, _, large, _ = records(['nat_mini'])
    assert quoted_accuracy(small) == 81.8
    assert quoted_accuracy(large) is None
    assert quoted_accuracy(records(['timm:resnet50'])[0]) is None
    (axes,) = draw_accuracy(records(['nat_mini', 'timm:resnet50', 'nat_tiny'], modes=['forward'])).axes
    assert [line.get_label() for line in axes.lines] == ['nat_tiny', 'nat_mini']


def test_each_candidate_looks_different():
    looks = [tuple(style.values()) for style in islice(styles(), 21)]
    assert len(set(looks)) == 21


def test_a_file_for_each_drawing(tmp_path):
    paths = draw_all(records(['nat_mini']), tmp_path / 'new')
    assert [path.name for path in paths] == [
        'model_forward_4_resolution.png',
        'model_4_accuracy.png',
        'model_forward_backward_4_resolution.png',
    ]
    assert all(path.stat().st_size for path in paths)
    assert draw_all(records(['timm:resnet50'], sides=(224,)), tmp_path) == []


def test_bars_beside_the_authors(tmp_path):
    here = origin(torch.device('cpu'), '')
    rows = [
        Row('authors', case, name, 'authors:a', mode=mode, batch=4, height=7, width=7, seconds=1.0, ratio=ratio)
        for case, ours in (('224 pixels, batch 4: nat_mini', 'nat_mini'), ('7x7, 1 heads x 32, batch 8: na', 'na'))
        for mode in MODES
        for name, ratio in (('authors:a', 1.0), (ours, 0.5))
    ]
    rows[1].memory_ratio = 0.75
    found = [record_of(row, here) for row in rows]
    speed, memory = draw_beside_authors([record for record in found if is_compared(record)]).axes
    assert [label.get_text() for label in speed.get_yticklabels()] == ['nat_mini', 'na, 7x7']
    assert [bar.get_width() for bar in speed.patches] == [2.0] * 4
    assert [bar.get_width() for bar in memory.patches] == [0.75, 0, 0, 0]
    assert [path.name for path in draw_all(found, tmp_path)] == ['authors.png']

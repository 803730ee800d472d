import csv

import pytest
import torch

from tools import _console, benchmark

QUICK = ['--rounds', '2', '--min-seconds', '0.001', '--batch-size', '2', '--threads', '1']


@pytest.fixture(autouse=True)
def _threads():
    """Gives back the threads that `--threads` takes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rows_of(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_models_side_by_side(tmp_path, capsys):
    argv = ['model', 'nat_pico', 'test_resnet', *QUICK, '--img-size', '32', '--csv', str(tmp_path / 'a.csv')]
    assert benchmark.main(argv) == 0
    rows = rows_of(tmp_path / 'a.csv')
    modes = [(row['candidate'], row['mode']) for row in rows]
    assert modes == [(name, mode) for mode in ('forward', 'forward+backward') for name in ('nat_pico', 'test_resnet')]
    for row in rows:
        assert row['baseline'] == 'nat_pico'
        assert 0 < float(row['seconds_low']) <= float(row['seconds']) <= float(row['seconds_high'])
        assert float(row['per_second']) == pytest.approx(2 / float(row['seconds']), rel=1e-3)
        assert row['torch'] == torch.__version__.partition('+')[0]
        assert row['command'].startswith('attnzoo benchmark model nat_pico test_resnet --rounds 2')
    assert float(rows[0]['ratio']) == 1
    assert int(rows[2]['peak_bytes']) > int(rows[0]['peak_bytes']) > 0
    assert 'time / nat_pico' in capsys.readouterr().out


def test_backends_of_na2d_against_global_attention(tmp_path):
    argv = ['op', 'na2d', *QUICK, '--maps', '9x8x2', '--head-dim', '4', '--kernel-size', '3', '--bias']
    assert benchmark.main([*argv, '--csv', str(tmp_path / 'a.csv')]) == 0
    rows = [row for row in rows_of(tmp_path / 'a.csv') if row['mode'] == 'forward+backward']
    assert {'global sdpa', 'blocked', 'reference'} <= {row['candidate'] for row in rows}
    assert rows[0]['case'] == '9x8, 2 heads x 4, kernel 3, dilation 1, bias, batch 2'


def test_candidate_that_cannot_run_is_named(capsys):
    assert benchmark.main(['op', 'na2d', *QUICK, '--maps', '4x4x1', '--mode', 'forward']) == 0
    shown = capsys.readouterr().out
    assert 'blocked cannot: kernel_size (7, 7)' in shown
    assert 'global sdpa' in shown


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['op', 'softmax'], 'na2d'),
        (['op', 'na2d', '--maps', '56x56'], 'HEIGHTxWIDTHxHEADS'),
        (['op', 'na2d', '--backends', 'magic'], 'no backend magic'),
        (['model', 'nat_pico', '--batch-size', '0'], '--batch-size'),
        (['model', 'nat_pcio'], 'did you mean nat_pico'),
    ],
)
def test_mistakes_are_one_line(capsys, argv, message):
    assert benchmark.main(argv) == _console.REFUSED
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1

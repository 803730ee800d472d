import pytest
import torch

from tools import _console, benchmark
from zoo.benchmark.floor import Rates
from zoo.benchmark.rows import Row, read_records

QUICK = ['--rounds', '2', '2', '--sample-seconds', '0', '--threads', '1']


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """Rates that need no measuring; gives back the threads that `--threads` takes."""
    monkeypatch.setattr('zoo.benchmark.case.machine_rates', lambda *_: Rates(1e9, 1e9))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_models_side_by_side(tmp_path, capsys):
    file = tmp_path / 'a.csv'
    argv = ['model', 'nat_pico', 'timm:test_resnet', *QUICK, '--img-size', '32', '--batch-size', '2']
    argv += ['--csv', str(file)]
    assert benchmark.main(argv) == 0
    rows = read_records(file)
    assert [row['mode'] for row in rows] == ['forward'] * 2 + ['forward+backward'] * 2
    for row in rows:
        assert row['baseline'] == 'nat_pico'
        assert 0 < float(row['seconds_low']) <= float(row['seconds']) <= float(row['seconds_high'])
        assert float(row['per_second']) == pytest.approx(2 / float(row['seconds']), rel=1e-3)
        assert row['torch'] == torch.__version__.partition('+')[0]
        assert row['command'].startswith('attnzoo benchmark model nat_pico timm:test_resnet --rounds 2')
    assert float(rows[0]['ratio']) == 1
    assert int(rows[2]['peak_bytes']) > int(rows[0]['peak_bytes']) > 0
    assert int(rows[2]['held_bytes']) > 0
    assert 'time / nat_pico' in capsys.readouterr().out


def test_operators_beside_global_attention(tmp_path, capsys):
    argv = ['op', 'na2d(kernel_size=3, bias=True)', 'natten(bias=True)', *QUICK, '--maps', '9x8x2x4']
    assert benchmark.main([*argv, '--batch-size', '2', '--csv', str(tmp_path / 'a.csv')]) == 0
    rows = read_records(tmp_path / 'a.csv')
    names = ['sdpa', 'na2d(kernel_size=3, bias=True)', 'natten(bias=True)']
    assert [row['candidate'] for row in rows] == 2 * names
    assert rows[0]['case'] == '9x8, 2 heads x 4, batch 2'
    assert rows[2]['note'] == 'natten has no option bias; it has: kernel_size, dilation, backend'
    assert 'natten(bias=True) cannot: natten has no option bias' in capsys.readouterr().out


def test_measured_cases_are_not_measured_again(tmp_path, monkeypatch):
    argv = ['op', 'sdpa', *QUICK, '--maps', '2x2x1', '--csv', str(tmp_path / 'a.csv')]
    assert benchmark.main(argv) == 0
    before = (tmp_path / 'a.csv').read_text()
    monkeypatch.setattr('zoo.benchmark.case.interleave', None)
    assert benchmark.main([*argv, '--resume']) == 0
    assert (tmp_path / 'a.csv').read_text() == before


def test_a_suite_says_what_is_reached(monkeypatch, capsys):
    def measure(case, rounds):
        rows = list(case.rows().values())
        for row in rows:
            row.ratio = row.value = 0.9
            row.judge(case.targets.get(row.candidate, ()))
        return rows

    monkeypatch.setattr('zoo.benchmark.case.measure', measure)
    assert benchmark.main(['--suite', 'hilo']) == 0
    shown = capsys.readouterr().out
    assert 'ratio <= 0.5' in shown
    assert 'missed' in shown
    assert '0 of 2 targets reached' in shown


def test_startup_is_of_imports_and_of_models(monkeypatch, capsys):
    monkeypatch.setattr('zoo.benchmark.startup.interleave', lambda tasks, *_: {name: [1.0, 2.0] for name in tasks})
    assert benchmark.main(['--suite', 'startup']) == 0
    shown = capsys.readouterr().out
    assert 'import, seconds beyond timm' in shown
    assert '6 of 6 targets reached' in shown


def test_nothing_measured_is_shown_as_such(capsys):
    from tools._figures import print_rows

    print_rows([Row('a', 'b', 'c', note='no')])
    assert 'c cannot: no' in capsys.readouterr().out


def test_the_authors_code_is_shown_by_its_name(capsys):
    from tools._figures import print_rows

    theirs = 'authors:NAT/classification:nat:nat_mini(kernel_size=(7, 7))'
    print_rows([Row('a', 'b', name, theirs, seconds=1.0, ratio=0.5) for name in (theirs, 'nat_mini')])
    shown = capsys.readouterr().out
    assert "time / authors' nat_mini" in shown
    assert 'classification' not in shown


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        ([], 'name a --suite'),
        (['op'], 'name a --suite'),
        (['op', 'na2d', '--suite', 'na'], 'name a --suite'),
        (['op', 'na2d', '--maps', '56x56'], 'HEIGHTxWIDTHxHEADS'),
        (['op', 'na2d', '--resume'], '--resume needs'),
        (['model', 'nat_pico', '--batch-size', '0'], '--batch-size'),
        (['model', 'nat_pico', '--rounds', '0', '3'], 'rounds must be'),
        (['model', 'nat_pcio'], 'did you mean nat_pico'),
    ],
)
def test_mistakes_are_one_line(capsys, argv, message):
    assert benchmark.main(argv) == _console.REFUSED
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1

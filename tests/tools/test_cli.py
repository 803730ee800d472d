import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import checkpoints
import zoo
from tools import _console, cli
from tools import list as list_tool

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def run():
    """Runs an action as a tool does."""
    return lambda action, *argv: _console.run(argparse.ArgumentParser(), action, argv)


def test_help_imports_neither_torch_nor_timm():
    code = 'import sys; from tools import cli; cli.main([]); assert not {"torch", "timm"} & set(sys.modules)'
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert all(f'\n  {command} ' in shown for command in cli.COMMANDS)


def test_every_command_has_a_module_with_a_parser_of_its_name():
    for command in cli.COMMANDS:
        module = importlib.import_module(f'tools.{command.replace("-", "_")}')
        assert module.build_parser().prog == f'attnzoo {command}'


def test_arguments_reach_the_subcommand(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(['info', '--help'])
    assert stop.value.code == 0
    assert 'usage: attnzoo info' in capsys.readouterr().out


def test_unknown_command_names_the_known(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(['lst'])
    assert stop.value.code == 2
    assert 'list' in capsys.readouterr().err


def test_script_runs_from_any_folder(tmp_path):
    script = ROOT / 'tools' / 'list.py'
    done = subprocess.run([sys.executable, script, 'vitrpb'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'vitrpb_small' in done.stdout


@pytest.mark.parametrize('error', [ValueError('bad'), checkpoints.CheckpointError('bad'), FileNotFoundError('bad')])
def test_expected_error_is_one_line(run, capsys, error):
    def fail(args):
        raise error

    assert run(fail) == _console.REFUSED
    assert capsys.readouterr().err == 'attnzoo: error: bad\n'


def test_debug_and_faults_of_ours_keep_the_traceback(run):
    def refuse(args):
        raise ValueError('bad')

    def break_down(args):
        raise KeyError('bad')

    with pytest.raises(ValueError, match='bad'):
        run(refuse, '--debug')
    with pytest.raises(KeyError):
        run(break_down)


def test_closed_pipe_is_no_error():
    code = (
        'import argparse, sys; from tools import _console\n'
        'def action(args): [print(i) for i in range(100_000)]\n'
        'sys.exit(_console.run(argparse.ArgumentParser(), action, []))'
    )
    tool = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tool.stdout.close()
    assert tool.communicate()[1] == ''
    assert tool.returncode == 0


def test_unknown_model_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown model 'nat_tny', did you mean nat_tiny"):
        _console.known_model('nat_tny')
    with pytest.raises(ValueError, match=r'did you mean resnet18'):
        _console.known_model('resnt18')
    with pytest.raises(ValueError, match=r"nat_mini has no weights 'foo'; known are: nat_mini.shi_in1k"):
        _console.known_model('nat_mini.foo')
    assert _console.known_model('nat_mini.shi_in1k') == 'nat_mini.shi_in1k'


def test_numbers_have_three_digits():
    assert [_console.millions(n) for n in (19_984_174, 2_299_884, 200_943_514)] == ['20.0', '2.30', '201']
    assert _console.billions(2_694_812_672) == '2.69'


@pytest.mark.parametrize('pixels', [[], [0], [1, 2, 3], [224, -1]])
def test_image_size_refuses_what_is_none(pixels):
    with pytest.raises(ValueError, match='--img-size takes'):
        _console.image_size(pixels)


def test_list_shows_every_model(capsys):
    assert list_tool.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f' {name} ' in shown for name in zoo.list_models())
    (line,) = [line for line in shown.splitlines() if ' nat_mini ' in line]
    assert line.split() == ['nat_mini', '20.0', '2.69', '224x224', 'shi_in1k', '81.8']


def test_list_filters(capsys):
    assert list_tool.main(['*mini', '--family', 'nat', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row['model'] for row in found] == ['nat_mini', 'dinat_mini']
    assert found[0]['weights'][0]['url'] == checkpoints.catalogue('nat')['nat_mini']['shi_in1k'].url
    assert list_tool.main(['--pretrained', '--json']) == 0
    assert all(row['weights'] for row in json.loads(capsys.readouterr().out))


@pytest.mark.parametrize('argv', [['nat_xyz'], ['--family', 'swin']])
def test_list_of_nothing_is_an_error(capsys, argv):
    assert list_tool.main(argv) == _console.REFUSED
    assert capsys.readouterr().err.startswith('attnzoo: error: no ')

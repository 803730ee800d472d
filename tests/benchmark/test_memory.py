import subprocess
import sys

import pytest
import torch

from zoo.benchmark.machine import device_name, origin, version_of
from zoo.benchmark.memory import held_memory, peak_memory

CPU = torch.device('cpu')


def test_peak_is_what_is_held_at_once():
    x = torch.zeros(1000, 1000)

    def task():
        y = x * 2
        z = y + 1
        del y
        return (z @ z).sum()

    assert peak_memory(task, CPU) == pytest.approx(2 * x.nbytes, rel=0.01)


def test_nothing_is_written():
    """In a process of its own: what torch's profiler writes is settled where a process first profiles."""
    program = (
        'import torch; from zoo.benchmark.memory import peak_memory; '
        "assert peak_memory(lambda: torch.zeros(100) + 1, torch.device('cpu')) >= 400"
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_activations_are_held_for_the_backward_pass():
    x = torch.zeros(500, 500, requires_grad=True)
    forward = peak_memory(lambda: x.detach().exp().exp().exp().sum(), CPU)
    both = peak_memory(lambda: torch.autograd.grad(x.exp().exp().exp().sum(), x), CPU)
    assert forward == pytest.approx(2 * x.nbytes, rel=0.01)
    assert both >= 4 * x.nbytes


def test_held_are_the_output_and_what_autograd_keeps():
    x = torch.zeros(500, 500, requires_grad=True)
    assert held_memory(lambda: x.exp().exp().exp(), CPU) == pytest.approx(3 * x.nbytes, rel=0.01)
    assert held_memory(lambda: x.detach().exp().exp().exp(), CPU) == pytest.approx(x.nbytes, rel=0.01)


@pytest.mark.parametrize('measured', [peak_memory, held_memory])
def test_other_devices_are_refused(measured):
    with pytest.raises(ValueError, match='not on meta'):
        measured(lambda: None, torch.device('meta'))


def test_origin_of_a_figure():
    assert device_name(CPU)
    assert version_of('no-such-package') == ''
    assert origin(CPU, 'attnzoo benchmark').torch == torch.__version__.partition('+')[0]

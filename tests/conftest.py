"""What every test starts from: our models in timm, two cores shared out among the workers, the same random numbers."""

import os
import sys

import pytest
import torch

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'  # before anything imports triton: its kernels run on the CPU

import zoo  # noqa: F401  (registers the models)

if 'OMP_NUM_THREADS' not in os.environ:
    torch.set_num_threads(max(1, 2 // int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--all', action='store_true', help='every variant of every family, not only the smallest')


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def compiled_anew() -> None:
    """What one test compiled must not make the sizes of the next ones dynamic."""
    if 'torch._dynamo' in sys.modules:
        torch.compiler.reset()

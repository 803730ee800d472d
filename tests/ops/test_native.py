"""The libraries of the kernels in C++: built where they can be, of all sources, refused where they are of before."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from ops import _native
from tests.ops.conftest import LIKE, needs_cpp

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = Path(_native.__file__).parents[1]
COMPILER = shutil.which('g++')
SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'ops').rglob('*.cpp'))

needs_compiler = pytest.mark.skipif(
    COMPILER is None or platform.machine() != 'x86_64', reason='needs g++ and an x86 processor'
)


@pytest.fixture(scope='module')
def libraries():
    with (ROOT / 'pyproject.toml').open('rb') as file:
        return tomllib.load(file)['tool']['setuptools']['ext-modules']


def test_libraries_are_of_all_sources(libraries):
    assert {library['name'] for library in libraries} == {f'ops.{name}' for name in _native.LIBRARIES.values()}
    headers = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'ops').rglob('*.h'))
    for library in libraries:
        assert library['sources'] == SOURCES
        assert library['depends'] == headers
        assert library['optional']


@needs_compiler
@pytest.mark.parametrize('processor', LIKE)
def test_libraries_were_built(processor):
    """Else the other tests of them are skipped where nobody looks."""
    assert _native.load(processor) is not None, 'make .venv/.dev builds them'


@needs_cpp
def test_a_library_of_another_interface_is_not_loaded(monkeypatch):
    assert _native.kernels() is not None
    monkeypatch.setattr(_native, 'INTERFACE', -1)
    _native.load.cache_clear()
    try:
        assert _native.kernels() is None
    finally:
        _native.load.cache_clear()


def test_other_processors_have_none():
    assert _native.load('DEFAULT') is None


@needs_cpp
def test_calls_that_should_not_have_been_made_are_errors():
    space = torch.zeros(64)
    with pytest.raises(RuntimeError, match='attention_forward of the C.. is not made for'):
        _native.call('attention_forward', [space.data_ptr()] * 40, 17, 0)


@needs_compiler
@pytest.mark.parametrize('source', SOURCES)
def test_sources_have_no_warnings(source, libraries):
    for library in libraries:
        flags = [*library['extra-compile-args'], '-Wall', '-Wextra', '-Werror', '-fsyntax-only', '-I.']
        done = subprocess.run([COMPILER, *flags, source], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

"""Runs timm's `tests/test_models.py`, from the source distribution of the installed version, on our models.

    python -m tests.timm_suite [--all] [pytest arguments]

Without `--all` the smallest variant of every family is taken. This module is also the pytest plugin that registers the
models and drops timm's own from the collection.
"""

import functools
import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import timm
import torch
from timm.models import _registry

import zoo

CACHE = Path(__file__).parents[1] / '.cache' / 'timm'
# timm lists by module the models whose `forward_intermediates` it checks: ours join one of those modules.
INTERMEDIATES_MODULE = 'convnext'
SCRIPTABLE = ('nat', 'dinat_s', 'nat_isotropic')
"""Families that TorchScript reads; it is promised for no other."""


@functools.cache
def smallest_variants() -> list[str]:
    """The variant with the fewest parameters of every family."""
    best: dict[str, tuple[int, str]] = {}
    for name in zoo.list_models():
        with torch.device('meta'):
            size = sum(p.numel() for p in timm.create_model(name).parameters())
        family = zoo.family_of(name)
        best[family] = min(best.get(family, (size, name)), (size, name))
    return [name for _, name in best.values()]


def pytest_configure(config: pytest.Config) -> None:
    """Makes timm's module list name our models before its tests are collected."""
    if 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(max(1, 2 // int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))))
    _registry._module_to_models[INTERMEDIATES_MODULE].update(zoo.list_models())


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Has timm judge the configurations of models whose features are tokens as it judges those of its own ViTs."""
    ours = {'test_model_default_cfgs': False, 'test_model_default_cfgs_non_std': True}
    wanted = ours.get(metafunc.function.__name__)
    for mark in metafunc.definition.iter_markers('parametrize') if wanted is not None else ():
        if mark.args[0] == 'model_name':
            chosen = os.environ['ATTNZOO_TIMM_MODELS'].split(',')
            tokens = [name for name in chosen if hasattr(timm.create_model(name, device='meta'), 'num_prefix_tokens')]
            mark.args[1][:] = [name for name in mark.args[1] if name.split('.')[0] not in tokens]
            mark.args[1].extend(tokens if wanted else ())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the tests whose `model_name` is one of the chosen models."""
    chosen = set(os.environ['ATTNZOO_TIMM_MODELS'].split(','))

    def ours(item: pytest.Item) -> bool:
        name = str(getattr(item, 'callspec', None) and item.callspec.params.get('model_name')).split('.')[0]
        scripted = 'torchscript' in getattr(item, 'originalname', '')
        return name in chosen and (not scripted or zoo.family_of(name) in SCRIPTABLE)

    dropped = [item for item in items if not ours(item)]
    items[:] = [item for item in items if ours(item)]
    config.hook.pytest_deselected(items=dropped)


def suite() -> Path:
    """timm's tests of the installed version, fetched from the package index once."""
    version = importlib.metadata.version('timm')
    # Under a name of its own, beside this project's package `tests`.
    tests = CACHE / f'timm-{version}' / 'timm_tests'
    if not tests.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--no-binary', ':all:']
        subprocess.run([*command, '--dest', str(CACHE), f'timm=={version}'], check=True)
        with tarfile.open(CACHE / f'timm-{version}.tar.gz') as archive:
            archive.extractall(CACHE, filter='data')
        tests.with_name('tests').rename(tests)
    return tests


def main(arguments: list[str]) -> int:
    """Runs the suite and returns pytest's exit status."""
    models = zoo.list_models() if '--all' in arguments else smallest_variants()
    rest = [a for a in arguments if a != '--all']
    tests = suite()
    # GITHUB_ACTIONS leaves out the tests that download from the model hub.
    environment = dict(os.environ, GITHUB_ACTIONS='1', ATTNZOO_TIMM_MODELS=','.join(models))
    command = [sys.executable, '-m', 'pytest', '-p', 'tests.timm_suite', '-q', '--rootdir', str(tests.parent)]
    command += ['-c', str(tests.parent / 'pyproject.toml'), '-p', 'no:cacheprovider', '-W', 'ignore']
    command += ['-n', os.environ.get('WORKERS', '2')]
    return subprocess.run(
        [*command, *rest, str(tests / 'test_models.py')], env=environment, cwd=Path(__file__).parents[1]
    ).returncode


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))

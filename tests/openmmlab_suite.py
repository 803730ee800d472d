"""Runs mmseg's and mmdet's own tests of the parts that our configs use, on the operators of `zoo.openmmlab`.

    python -m tests.openmmlab_suite [--mmdet CHECKOUT] [pytest arguments]

mmseg's tests are in the source distribution of its last release, fetched from the package index once. mmdet's are only
in its repository: name the folder of a checkout, also by the variable MMDET_CHECKOUT, or they are left out. This module
is also the pytest plugin that stands in for the operators and drops the tests of `CANNOT_PASS`.
"""

import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CACHE = ROOT / '.cache' / 'openmmlab'
RELEASE = 'mmsegmentation-1.2.2'
PARAMETERIZED = 'parameterized==0.9.0'
"""What mmdet's tests need beside this project's own packages."""
MMSEG = (
    *(f'test_models/test_heads/test_{head}_head.py' for head in ('decode', 'fcn', 'uper', 'mask2former', 'maskformer')),
    *('test_models/test_necks', 'test_models/test_utils', 'test_models/test_data_preprocessor.py', 'test_sampler.py'),
    *(f'test_models/test_segmentors/test_{name}.py' for name in ('encoder_decoder', 'cascade_encoder_decoder')),
    *('test_models/test_segmentors/test_seg_tta_model.py', 'test_config.py'),
)
MMDET = (
    *(f'test_dense_heads/test_{head}_head.py' for head in ('anchor', 'rpn', 'atss', 'embedding_rpn')),
    *(f'test_roi_heads/test_{kind}_roi_head.py' for kind in ('standard', 'cascade', 'sparse')),
    *('test_roi_heads/test_bbox_heads/test_bbox_head.py', 'test_roi_heads/test_mask_heads/test_fcn_mask_head.py'),
    *('test_roi_heads/test_roi_extractors', 'test_seg_heads/test_maskformer_fusion_head.py', 'test_losses'),
    *('test_necks/test_necks.py', 'test_layers', 'test_task_modules/test_assigners', 'test_task_modules/test_coder'),
    *('test_task_modules/test_samplers', 'test_task_modules/test_prior_generators', 'test_data_preprocessors'),
    *(f'test_detectors/test_{name}.py' for name in ('two_stage', 'single_stage', 'rpn', 'maskformer')),
)
CANNOT_PASS = {
    'test_config.py::test_config_data_pipeline': 'goes through all configs of mmseg, of which some need mmpretrain',
    'test_loss.py::test_ddq_aux_loss': 'reads a file below its working folder; no config here takes DDQ',
}
"""Part of a test's name -> why it cannot pass, whatever the operators."""


def pytest_configure(config: pytest.Config) -> None:
    """Stands in for the operators, and lets mmdet's tests find the configs of the installed mmdet."""
    import zoo.openmmlab  # noqa: F401  before mmdet is imported

    # isort: split
    from mmdet.testing import _utils

    _utils._get_config_directory = lambda: str(installed_configs('mmdet'))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drops the tests that cannot pass."""
    dropped = [item for item in items if any(part in item.nodeid for part in CANNOT_PASS)]
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=dropped)


def installed_configs(package: str) -> Path:
    """The configs that an installed library brings along."""
    origin = find_spec(package).origin  # type: ignore[union-attr]
    return Path(origin).parent / '.mim' / 'configs'  # type: ignore[arg-type]


def fetched(*arguments: str) -> None:
    """Runs pip with arguments that name a place in the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, '-m', 'pip', '--quiet', *arguments], check=True)


def mmseg_tests() -> Path:
    """mmseg's tests, with the configs beside them where they look for them."""
    folder = CACHE / RELEASE
    # Under a name of its own, beside this project's package `tests`.
    tests = folder / 'mmseg_tests'
    if not tests.exists():
        name = RELEASE.replace('-', '==')
        fetched('download', '--no-deps', '--no-binary', ':all:', '--dest', str(CACHE), name)
        with tarfile.open(CACHE / f'{RELEASE}.tar.gz') as archive:
            members = [member for member in archive if member.name.startswith(f'{RELEASE}/tests/')]
            archive.extractall(CACHE, members, filter='data')
        (folder / 'configs').symlink_to(installed_configs('mmseg'))
        (folder / 'tests').rename(tests)
    return tests


def run(files: list[str], folder: Path, arguments: list[str]) -> int:
    """pytest's exit status for test files below a folder."""
    packages = CACHE / 'packages'
    if not packages.exists():
        fetched('install', '--no-deps', '--target', str(packages), PARAMETERIZED)
    command = [sys.executable, '-m', 'pytest', '-p', 'tests.openmmlab_suite', '-q', '-W', 'ignore', '-c', os.devnull]
    command += ['-p', 'no:cacheprovider', '--rootdir', str(folder), '-n', os.environ.get('WORKERS', '2'), *arguments]
    paths = os.pathsep.join((str(ROOT), str(packages), os.environ.get('PYTHONPATH', '')))
    environment = os.environ | {'PYTHONPATH': paths}
    return subprocess.run([*command, *files], env=environment, cwd=ROOT).returncode


def main(arguments: list[str]) -> int:
    """Runs both suites and returns pytest's first exit status that is not 0."""
    checkout = os.environ.get('MMDET_CHECKOUT', '')
    if '--mmdet' in arguments:
        place = arguments.index('--mmdet')
        checkout = arguments[place + 1]
        arguments = arguments[:place] + arguments[place + 2 :]
    tests = mmseg_tests()
    statuses = [run([str(tests / file) for file in MMSEG], tests.parent, arguments)]
    if checkout:
        models = Path(checkout) / 'tests' / 'test_models'
        statuses.append(run([str(models / file) for file in MMDET], Path(checkout), arguments))
    else:
        print('mmdet: no checkout of its repository is named, see --help of this module: its tests are left out')
    return next((status for status in statuses if status), 0)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))

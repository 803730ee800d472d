"""A data set of coloured squares, a network of ten thousand weights and a config of both, trained in a second."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine', reason='training needs mmengine (the extra [train])')

ROOT = Path(__file__).parents[2]

CONFIG = f"""
_base_ = ['{ROOT}/configs/_base_/schedules/muon_12e.py', '{ROOT}/configs/_base_/runtime/default.py']
arrays = dict(num_workers=0, collate_fn=dict(type='take_batch'))
train_dataloader = dict(
    **arrays, batch_size=16, drop_last=True, dataset=dict(type='NpzDataset', file='squares.npz', split='train'),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    **arrays, batch_size=16, dataset=dict(type='NpzDataset', file='squares.npz', split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
model = dict(
    type='Classifier', name='convnext_atto', depths=(1, 1, 1, 1), dims=(8, 16, 16, 16), num_classes=4,
    data_preprocessor=dict(type='ImagePreprocessor'),
)
optim_wrapper = dict(_delete_=True, type='OptimWrapper', constructor='TimmOptimizer',
                     optimizer=dict(opt='adamw', lr=3e-3, weight_decay=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=3, end=3, eta_min=1e-5, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=3)
val_cfg = dict(fp16=False)
"""

RANDOM = """
model = dict(
    drop_path_rate=0.3, loss=dict(type='soft_target'),
    data_preprocessor=dict(
        augment=[dict(type='BatchCropFlip'), dict(type='BatchJitter')], erase=dict(type='BatchErase'),
        mixup=dict(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=4),
    ),
)
custom_hooks = [dict(type='WeightAverage', ema_type='MomentumAnnealingEMA', momentum=0.01)]
"""
"""Everything that draws random numbers or keeps a state."""


def squares(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 32, 32, 3) noise with a square in one of four colours, and the number of the colour."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(count) % 4
    colours = np.array([(250, 20, 20), (20, 250, 20), (20, 20, 250), (240, 240, 240)], dtype=np.uint8)
    for image, label, (row, column) in zip(images, labels, generator.integers(0, 20, (count, 2))):
        image[row : row + 12, column : column + 12] = colours[label]
    return images, labels


@pytest.fixture(scope='session')
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with squares.npz: 96 images to train on and 42 to test."""
    folder = tmp_path_factory.mktemp('data')
    (images, labels), (test_images, test_labels) = squares(96, 0), squares(42, 1)
    arrays = {'train_images': images, 'train_labels': labels, 'test_images': test_images, 'test_labels': test_labels}
    np.savez(folder / 'squares.npz', **arrays)
    return folder


@pytest.fixture
def config(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a config file: the small one, and lines that are merged into it as a child config."""
    monkeypatch.setenv('ATTNZOO_DATA', str(data_root))

    def write(*children: str) -> str:
        path = tmp_path / 'config0.py'
        path.write_text(CONFIG)
        for number, lines in enumerate(children, 1):
            parent, path = path, tmp_path / f'config{number}.py'
            path.write_text(f"_base_ = '{parent.name}'\n{lines}")
        return str(path)

    return write


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Path]:
    """Runs the training tool in this process and returns the work folder."""
    from tools import train as tool

    torch.set_num_threads(1)  # the network is too small to share out

    def run(config: str, *arguments: str, name: str = 'run', status: int = 0) -> Path:
        folder = tmp_path / name
        assert tool.main([config, '--work-dir', str(folder), '--debug', *arguments]) == status
        return folder

    return run


def in_a_new_process(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess:
    """Runs python with as many threads as this process has, from the root of the project."""
    environment = os.environ | {'OMP_NUM_THREADS': str(torch.get_num_threads()), 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, *(['-c', code] if code else []), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def losses(checkpoint: Path) -> list[float]:
    """The losses of all iterations that a checkpoint remembers."""
    hub = torch.load(checkpoint, weights_only=True)['message_hub']
    return hub['log_scalars']['train/loss'][0].tolist()

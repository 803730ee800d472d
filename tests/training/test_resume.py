import errno
import json
import shutil
import signal

import pytest
import torch
from PIL import Image

from checkpoints import CheckpointError
from tests.training.conftest import RANDOM, in_a_new_process, losses, squares
from zoo.training.hooks import AtomicLocalBackend, saved
from zoo.training.log import read_log

SAVING = 'default_hooks = dict(checkpoint=dict(iterations=4, keep=3))\noptim_wrapper = dict(accumulative_counts=2)\n'

KILLED_AFTER_NINE = """
import os, signal, sys
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tools import train

@HOOKS.register_module()
class Kill(Hook):
    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == 9:
            os.kill(os.getpid(), signal.SIGKILL)

train.main(sys.argv[1:])
"""


def same_tree(first, second) -> bool:
    """Whether two nested containers hold the same numbers, bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_tree(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same_tree, first, second))
    return first == second


def test_killed_run_repeats_the_uninterrupted_one(config, train, tmp_path):
    path = config(RANDOM, SAVING)
    whole = train(path)
    killed = tmp_path / 'killed'
    options = ['--cfg-options', 'default_hooks.kill.type=Kill']
    process = in_a_new_process(path, '--work-dir', str(killed), *options, code=KILLED_AFTER_NINE)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert [file.name for file in saved(killed)] == ['iter_8.pth', 'epoch_1.pth', 'iter_4.pth']
    train(path, '--resume', name='killed')
    names = 'epoch_3.pth', 'best.pth'
    for one, other in ([torch.load(run / name, weights_only=True) for run in (whole, killed)] for name in names):
        for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
            assert (part in one) == (part in other)
            assert same_tree(one.get(part), other.get(part)), part
    assert len(losses(whole / 'epoch_3.pth')) == 18
    assert losses(whole / 'epoch_3.pth') == losses(killed / 'epoch_3.pth')
    kept = 'epoch', 'iteration', 'loss', 'lr', 'top1', 'top5'
    assert [[line[name] for name in kept] for line in read_log(whole / 'log.jsonl')] == [
        [line[name] for name in kept] for line in read_log(killed / 'log.jsonl')
    ]


def test_resumes_at_the_end_of_an_epoch(config, train, tmp_path):
    path = config(RANDOM)
    whole = train(path)
    again = tmp_path / 'again'
    again.mkdir()
    shutil.copy(whole / 'epoch_2.pth', again)
    (again / 'log.jsonl').write_text((whole / 'log.jsonl').read_text() + '{"epoch": 4, "lo')
    train(path, '--resume', str(again / 'epoch_2.pth'), name='again')
    assert losses(whole / 'epoch_3.pth') == losses(again / 'epoch_3.pth')
    assert [line['epoch'] for line in read_log(again / 'log.jsonl')] == [1, 2, 3]


def test_augmentation_by_worker_processes_resumes_too(config, train, tmp_path):
    for number, (pixels, label) in enumerate(zip(*squares(48, 0))):
        file = tmp_path / 'files' / 'train' / str(label) / f'{number}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    path = config(f"""
data_root = '{tmp_path}/files'
transform = dict(is_training=True, input_size=32, auto_augment='rand-m9-mstd0.5-inc1')
train_dataloader = dict(
    _delete_=True, batch_size=8, num_workers=2, collate_fn=dict(type='default_collate'),
    dataset=dict(type='FolderDataset', folder='train', transform=transform),
    sampler=dict(type='RepeatedAugmentation', num_repeats=2),
)
val_dataloader, val_cfg, val_evaluator = None, None, None
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(iterations=8, keep=9))
""")
    whole = train(path)
    train(path, '--resume', str(whole / 'iter_8.pth'), name='again', status=0)
    first, second = losses(whole / 'epoch_2.pth'), losses(tmp_path / 'again' / 'epoch_2.pth')
    assert first == second
    assert first[:6] != first[6:]
    # without worker processes the numbers are the same ones
    alone = train(path, '--cfg-options', 'train_dataloader.num_workers=0', 'train_cfg.max_epochs=1', name='alone')
    assert losses(alone / 'epoch_1.pth') == first[:6]


def test_checkpoints_hold_nothing_but_data(config, train):
    folder = train(config(RANDOM), '--cfg-options', 'train_cfg.max_epochs=1')
    checkpoint = torch.load(folder / 'epoch_1.pth', weights_only=True)
    assert json.dumps(checkpoint['meta'])
    assert 'optimizer' not in torch.load(folder / 'best.pth', weights_only=True)


def test_only_the_newest_checkpoints_stay(config, train):
    folder = train(config())
    assert sorted(file.name for file in folder.glob('*.pth')) == ['best.pth', 'epoch_2.pth', 'epoch_3.pth']
    assert not list(folder.glob('.*'))


@pytest.mark.parametrize(('argument', 'message'), [('auto', 'run'), ('gone.pth', 'gone.pth')])
def test_resume_without_a_checkpoint_is_refused(config, tmp_path, capsys, argument, message):
    from tools import train

    assert train.main([config(), '--work-dir', str(tmp_path / 'run'), '--resume', argument]) == 2
    assert message in capsys.readouterr().err


def test_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    backend = AtomicLocalBackend()
    backend.put(b'whole', path)

    def full(self, content):
        with open(self, 'wb') as file:
            file.write(content[:2])
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(type(path), 'write_bytes', full)
    with pytest.raises(CheckpointError, match='No space left'):
        backend.put(b'another', path)
    assert path.read_bytes() == b'whole'
    assert list(tmp_path.iterdir()) == [path]

import socket

import torch

from tests.openmmlab.test_training import same_tree
from tests.training.conftest import in_a_new_process
from zoo.training.log import read_log

SCRIPT = """
import sys
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tools import train

@HOOKS.register_module()
class SaveEachRank(Hook):
    def after_train(self, runner):
        torch.save(runner.model.module.state_dict(), f'{runner.work_dir}/rank{get_rank()}.pt')

for config in sys.argv[2:]:
    task = config.rpartition('/')[2].partition('_')[0]
    options = ['--launcher', 'pytorch', '--debug', '--cfg-options', 'default_hooks.each.type=SaveEachRank']
    assert train.main([config, '--work-dir', f'{sys.argv[1]}/{task}', *options]) == 0
"""

LENGTHS = {
    'detection': 'train_cfg.update(max_epochs=1, val_interval=1)',
    'segmentation': 'train_cfg.update(max_iters=3)',
}
"""What makes three iterations of each run."""


def test_two_processes_end_with_the_same_weights(config, tmp_path):
    script = tmp_path / 'train_both.py'
    script.write_text(SCRIPT)
    configs = [config(task, f'train_dataloader.update(batch_size=2)\n{length}') for task, length in LENGTHS.items()]
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torchrun = ['-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}']
    process = in_a_new_process(*torchrun, str(script), str(tmp_path), *configs)
    assert process.returncode == 0, process.stderr
    for task, score in (('detection', 'coco/bbox_mAP'), ('segmentation', 'mIoU')):
        (line,) = read_log(tmp_path / task / 'log.jsonl')
        assert (line['iteration'], score in line) == (3, True)
        states = [torch.load(tmp_path / task / f'rank{rank}.pt', weights_only=True) for rank in (0, 1)]
        buffers = 'running_mean', 'running_var'  # those of plain batch norms are each process's own
        first, second = ({k: v for k, v in state.items() if not k.endswith(buffers)} for state in states)
        assert same_tree(first, second)

import socket

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import in_a_new_process
from zoo.training.log import read_log


def test_two_processes_equal_one_with_the_doubled_batch(config, train, tmp_path):
    path = config('optim_wrapper = dict(clip_grad=dict(max_norm=1.0))\ntrain_cfg = dict(max_epochs=2)\n')
    alone = train(path)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    together = tmp_path / 'together'
    torchrun = ['-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}']
    options = ['--work-dir', str(together), '--launcher', 'pytorch', '--cfg-options', 'train_dataloader.batch_size=8']
    process = in_a_new_process(*torchrun, 'tools/train.py', path, *options)
    assert process.returncode == 0, process.stderr
    for one, other in zip(read_log(alone / 'log.jsonl'), read_log(together / 'log.jsonl'), strict=True):
        assert other['loss'] == pytest.approx(one['loss'], rel=1e-4)
        assert other['top1'] == one['top1']
        assert other['iteration'] == one['iteration']
    weights, others = (load_file(run / 'convnext_atto.safetensors') for run in (alone, together))
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-3, atol=2e-4)

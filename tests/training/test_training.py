import json

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from safetensors import safe_open
from safetensors.torch import load_file
from timm.scheduler import CosineLRScheduler

from tests.training.conftest import RANDOM, ROOT, losses
from zoo.training.log import read_log
from zoo.training.runner import read_config, trainer

EXPORTED = 'convnext_atto.safetensors'


@HOOKS.register_module()
class KeepWeights(Hook):
    """Keeps a copy of the weights after every iteration."""

    kept: list[dict[str, torch.Tensor]] = []

    def before_train(self, runner):
        self.kept.clear()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.kept.append({name: weight.detach().clone() for name, weight in runner.model.model.named_parameters()})


def test_learns_and_leaves_its_record(config, train, capsys):
    longer = 'train_cfg.max_epochs=12', 'param_scheduler.0.T_max=12', 'param_scheduler.0.end=12'
    folder = train(config(), '--cfg-options', *longer)
    log = read_log(folder / 'log.jsonl')
    assert [line['epoch'] for line in log] == list(range(1, 13))
    assert log[-1]['loss'] < 0.5 * log[0]['loss']
    assert log[-1]['top1'] > 75
    assert {'iteration', 'loss', 'lr', 'seconds', 'images_per_second', 'data_share', 'top1', 'top5'} < set(log[0])
    assert (folder / 'curve.png').read_bytes().startswith(b'\x89PNG')
    assert list(folder.glob('*/vis_data/events.out.tfevents*'))
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 13, printed.out
    assert '━' not in printed.err, 'a progress bar where there is no terminal'


def test_progress_bar_on_a_terminal(config, train, capsys, monkeypatch):
    monkeypatch.setattr('sys.stderr.isatty', lambda: True)
    monkeypatch.setenv('TERM', 'xterm')
    train(config(), '--cfg-options', 'train_cfg.max_epochs=2')
    shown = capsys.readouterr().err
    assert 'epoch 1/2' in shown
    assert 'epoch 2/2' in shown
    assert '6/6' in shown


def test_exported_weights_know_their_run_and_their_images(config, train):
    folder = train(config(), '--seed', '7', '--cfg-options', 'train_cfg.max_epochs=1')
    with safe_open(folder / EXPORTED, 'pt') as file:
        metadata = file.metadata()
    assert metadata['model'] == 'convnext_atto'
    assert metadata['seed'] == '7'
    described = json.loads(metadata['pretrained_cfg'])
    assert described['mean'] == [0.485, 0.456, 0.406]
    assert described['input_size'] == [3, 32, 32]
    assert described['label_names'] == ['0', '1', '2', '3']


def test_another_seed_is_another_run_and_the_same_seed_is_not(config, train):
    path = config(RANDOM)
    one = ['--cfg-options', 'train_cfg.max_epochs=1']
    runs = [losses(train(path, '--seed', seed, *one, name=f'run{i}') / 'epoch_1.pth') for i, seed in enumerate('001')]
    assert runs[0] == runs[1] != runs[2]


def test_averaged_weights_are_exported_and_validated(config, train):
    folder = train(
        config("""
custom_hooks = [dict(type='WeightAverage', momentum=0.1), dict(type='KeepWeights', priority='VERY_HIGH')]
optim_wrapper = dict(accumulative_counts=3)
""")
    )
    assert len(KeepWeights.kept) == 18
    average = KeepWeights.kept[2]
    for weights in KeepWeights.kept[5::3]:
        average = {name: value.lerp(weights[name], 0.1) for name, value in average.items()}
    exported, last = load_file(folder / EXPORTED), torch.load(folder / 'epoch_3.pth', weights_only=True)
    assert exported.keys() == last['state_dict'].keys()
    for name, weight in exported.items():
        torch.testing.assert_close(weight, average[name])
        assert torch.equal(weight, last['state_dict'][name])
    raw = {name.removeprefix('module.'): value for name, value in last['ema_state_dict'].items()}
    assert all(torch.equal(raw[name], weight) for name, weight in KeepWeights.kept[-1].items())
    assert not all(torch.equal(raw[name], weight) for name, weight in exported.items())


def test_accumulated_gradients_equal_the_large_batch(config, train):
    path = config('custom_hooks = [dict(type="KeepWeights")]\nparam_scheduler = None\ntrain_cfg = dict(max_epochs=1)\n')
    train(path, name='large')
    large = KeepWeights.kept[-1].copy()
    train(path, '--cfg-options', 'train_dataloader.batch_size=4', 'optim_wrapper.accumulative_counts=4', name='small')
    assert len(KeepWeights.kept) == 24
    assert all(torch.equal(weight, KeepWeights.kept[2][name]) for name, weight in KeepWeights.kept[1].items())
    for name, weight in KeepWeights.kept[-1].items():
        torch.testing.assert_close(weight, large[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_mixed_precision_learns_with_float32_weights(config, train, dtype):
    longer = 'train_cfg.max_epochs=6', 'param_scheduler.0.T_max=6', 'param_scheduler.0.end=6'
    folder = train(config(), '--amp', dtype, '--cfg-options', f'val_cfg.fp16={dtype == "bfloat16"}', *longer)
    log = read_log(folder / 'log.jsonl')
    assert log[-1]['loss'] < 0.8 * log[0]['loss']
    assert {weight.dtype for weight in load_file(folder / EXPORTED).values()} == {torch.float32}


def test_clipped_gradients_are_short(config, train):
    folder = train(config(), '--cfg-options', 'optim_wrapper.clip_grad.max_norm=0.001', 'train_cfg.max_epochs=1')
    hub = torch.load(folder / 'epoch_1.pth', weights_only=True)['message_hub']['log_scalars']
    assert hub['train/grad_norm'][0].min() > 0.001, 'the norm before clipping is what is logged'
    unclipped = train(config(), '--cfg-options', 'train_cfg.max_epochs=1', name='unclipped')
    assert losses(unclipped / 'epoch_1.pth')[1:] != losses(folder / 'epoch_1.pth')[1:]


def test_best_weights_are_those_of_the_best_epoch(config, train):
    folder = train(config(), '--cfg-options', 'default_hooks.checkpoint.keep=9')
    log = read_log(folder / 'log.jsonl')
    best = max(log, key=lambda line: (line['top1'], -line['epoch']))
    chosen, all_epochs = (
        torch.load(folder / name, weights_only=True) for name in ('best.pth', f'epoch_{best["epoch"]}.pth')
    )
    assert chosen['meta']['epoch'] == best['epoch']
    assert all(torch.equal(weight, all_epochs['state_dict'][name]) for name, weight in chosen['state_dict'].items())


def test_layer_decay_gives_every_group_its_rate(config):
    options = {'optim_wrapper.optimizer.layer_decay': 0.5, 'work_dir': str(config()) + '.run'}
    runner = trainer(read_config(config(), options))
    rates = {group['lr'] for group in runner.optim_wrapper.optimizer.param_groups}
    assert max(rates) == 3e-3
    assert min(rates) < 3e-3 / 8
    for group in runner.optim_wrapper.optimizer.param_groups:
        assert {weight.ndim > 1 for weight in group['params']} == {group['weight_decay'] > 0}


@pytest.mark.filterwarnings('ignore:Detected call of')
def test_schedule_is_that_of_the_authors_within_a_percent(config, monkeypatch):
    schedule = Config.fromfile(f'{ROOT}/configs/_base_/schedules/adamw_300e.py')
    weight = torch.nn.Parameter(torch.zeros(1))
    options = {'work_dir': config() + '.run', 'param_scheduler': schedule.param_scheduler, 'train_cfg.max_epochs': 310}
    options |= {'optim_wrapper.optimizer.lr': 1e-3}
    runner = trainer(read_config(config(), options))
    schedulers = runner.build_param_scheduler(runner.param_schedulers)
    steps = len(runner.train_loop.dataloader)
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    theirs = CosineLRScheduler(
        optimizer, t_initial=300 * steps, lr_min=5e-6, warmup_lr_init=1e-6, warmup_t=20 * steps, t_in_epochs=False
    )
    for step in range(1, 310 * steps):
        for scheduler in schedulers:
            scheduler.step()
        theirs.step_update(step)
        if step % 7 == 0 and step != 20 * steps:
            assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(optimizer.param_groups[0]['lr'], rel=0.01)

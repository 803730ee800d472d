import json
import math

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
    assert described['crop_pct'] == 1.0


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


def rates(config: str, recipe: str) -> tuple[list[float], int]:
    """The rate of every step of a recipe, on the small data set, and how many steps an epoch has."""
    wanted = Config.fromfile(f'{ROOT}/configs/classification/{recipe}_imagenet.py')
    options = {'work_dir': f'{config}.run', 'param_scheduler': wanted.param_scheduler}
    options |= {'train_cfg.max_epochs': wanted.train_cfg.max_epochs}
    options |= {'optim_wrapper.optimizer.lr': wanted.optim_wrapper.optimizer.lr}
    runner = trainer(read_config(config, options))
    schedulers, found = runner.build_param_scheduler(runner.param_schedulers), []
    steps = len(runner.train_loop.dataloader)
    for step in range(1, wanted.train_cfg.max_epochs * steps):
        for scheduler in schedulers:
            if not scheduler.by_epoch or step % steps == 0:
                scheduler.step()
        found.append(runner.optim_wrapper.get_lr()['lr'][0])
    return found, steps


@pytest.mark.filterwarnings('ignore:Detected call of')
@pytest.mark.parametrize(
    ('recipe', 'lr', 'lr_min', 'warmup_lr', 'warmup', 'epochs'),
    [
        ('nat/nat_mini', 1e-3, 5e-6, 1e-6, 20, 300),
        ('agent_swin/agent_swin_base_384', 1e-5, 1e-7, 1e-8, 5, 30),
        ('cswin/cswin_base_384', 5e-6, 5e-7, 0, 0, 20),
        ('pvt/pvt_tiny', 1e-3, 1e-5, 1e-6, 5, 300),
    ],
)
def test_schedule_is_that_of_the_authors(config, recipe, lr, lr_min, warmup_lr, warmup, epochs):
    found, steps = rates(config(), recipe)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    times = {'t_initial': epochs * steps, 'warmup_t': warmup * steps, 't_in_epochs': False}
    theirs = CosineLRScheduler(optimizer, lr_min=lr_min, warmup_lr_init=warmup_lr, **times)
    # ours falls by the cosine while it still rises, and is at the top a step before theirs
    bound = 0.005 + (1 - math.cos(math.pi * warmup / epochs)) / 2 + (1 / (warmup * steps) if warmup else 0)
    for step, rate in enumerate(found, 1):
        theirs.step_update(step)
        if step % 7 == 0 and step != warmup * steps:
            assert rate == pytest.approx(optimizer.param_groups[0]['lr'], rel=bound)


@pytest.mark.filterwarnings('ignore:Detected call of')
@pytest.mark.parametrize(
    ('recipe', 'expected'),
    [
        ('gated_resnet/eca_resnet18', lambda epoch: 0.1 * 0.1 ** (epoch // 30)),
        ('gated_resnet/senet_se_resnet18', lambda epoch: 0.075 * 0.1 ** ((epoch >= 50) + (epoch >= 70))),
        ('gated_mobilenetv2/eca_mobilenetv2', lambda epoch: 0.045 * 0.98**epoch),
    ],
)
def test_rates_fall_by_the_epoch(config, recipe, expected):
    found, steps = rates(config(), recipe)
    for step, rate in enumerate(found, 1):
        assert rate == pytest.approx(expected(step // steps))


@pytest.mark.parametrize('opt', ['adamw', 'momentum'])
def test_names_choose_the_rates_of_parameters(config, opt):
    path = config(f"""
optim_wrapper = dict(optimizer=dict(opt='{opt}'), paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=20))))
""")
    runner = trainer(read_config(path, {'work_dir': f'{path}.run'}))
    names = {id(weight): name for name, weight in runner.model.model.named_parameters()}
    groups = runner.optim_wrapper.optimizer.param_groups
    found = {names[id(weight)]: (group['lr'], group['weight_decay']) for group in groups for weight in group['params']}
    assert found.keys() == set(names.values())
    for name, (lr, decay) in found.items():
        assert lr == pytest.approx(20 * 3e-3 if 'head' in name else 3e-3)
        assert (decay > 0) == (dict(runner.model.model.named_parameters())[name].ndim > 1)

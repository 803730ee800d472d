"""Trains a model by a config file: `attnzoo train configs/classification/nat/nat_pico_cifar10.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tools import _console


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(prog='attnzoo train', description='Train a model by a config file.')
    parser.add_argument('config', help='a config file, see configs/')
    parser.add_argument('--work-dir', help='folder of log, checkpoints and weights (work_dirs/CONFIG)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT', help='go on from it (or the newest)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override the config: a.b=1 c="[1,2]"')
    parser.add_argument('--amp', nargs='?', const='bfloat16', choices=('bfloat16', 'float16'), help='mixed precision')
    parser.add_argument('--launcher', choices=('none', 'pytorch'), default='none', help='pytorch under torchrun')
    parser.add_argument('--seed', type=int, help='of all random numbers')
    return parser


def train(args: argparse.Namespace) -> None:
    """Builds the runner and trains."""
    import torch

    from zoo.kept_memory import keep_freed_memory
    from zoo.training import hooks, runner

    if not torch.cuda.is_available():
        keep_freed_memory()
    config = runner.read_config(args.config, options(args.cfg_options))
    config.launcher = args.launcher
    config.work_dir = args.work_dir or config.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    config.setdefault('randomness', {'seed': 0})
    if args.seed is not None:
        config.randomness.seed = args.seed
    if args.amp:
        config.optim_wrapper.update(type='MixedPrecision', dtype=args.amp)
    if args.resume:
        found = hooks.saved(config.work_dir) if args.resume == 'auto' else [Path(args.resume)]
        if not found or not found[0].is_file():
            raise ValueError(f'no checkpoint to resume from: {found[0] if found else config.work_dir}')
        config.resume, config.load_from = True, str(found[0])
    runner.trainer(config).train()


def options(pairs: Sequence[str] | None) -> dict:
    """``['a.b=1', 'c=[1,2]']`` -> ``{'a.b': 1, 'c': [1, 2]}``, by mmengine's rules."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--set', nargs='*', action=DictAction, default={})
    return parser.parse_args(['--set', *(pairs or ())]).set


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), train, argv)


if __name__ == '__main__':
    raise SystemExit(main())

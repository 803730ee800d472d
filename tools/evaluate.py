"""Measures accuracy: `attnzoo evaluate nat_pico pretrained data/cifar10.npz`, or a config in place of the model."""

import argparse
import csv
import datetime
import io
import json
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import _console, train

if TYPE_CHECKING:
    from mmengine.runner import Runner

COLUMNS = (
    *('model', 'dataset', 'split', 'metric', 'value', 'resolution'),
    *('weights', 'config', 'seed', 'date', 'commit', 'device'),
)


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='attnzoo evaluate', description='Measure the accuracy of a model on a data set.'
    )
    parser.add_argument('model', help='a config file, or the name of a model of this project or of timm')
    parser.add_argument('weights', help='a file, a url, a hub id, model.tag of the catalogue, or: pretrained')
    parser.add_argument('data', nargs='?', help='an .npz file or a folder of classes; data_root of a config')
    parser.add_argument('--split', help='of the data: test or val if absent')
    parser.add_argument('--img-size', type=int, metavar='N', help="pixels per side (the model's own)")
    parser.add_argument('--crop-pct', type=float, metavar='X', help="part of the image's side (the model's own)")
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override the config: a.b=1 c="[1,2]"')
    parser.add_argument('--results', type=Path, metavar='CSV', help='append a row per metric to this table')
    parser.add_argument('--dataset', metavar='NAME', help='name of the data in the table (that of the file or folder)')
    return parser


def evaluate(args: argparse.Namespace) -> None:
    """Prints the metrics, as text and as one JSON line, and appends them to a table."""
    if args.results:
        check_table(args.results)
    with tempfile.TemporaryDirectory() as work_dir:
        runner = build_runner(args, work_dir)
        metrics = {name: float(value) for name, value in runner.test().items()}
    report = describe(args, runner)
    _console.print_table(('metric', '%'), [(name, f'{value:.2f}') for name, value in metrics.items()])
    print(json.dumps(report | metrics))
    if args.results:
        append(args.results, [report | {'metric': name, 'value': f'{value:.2f}'} for name, value in metrics.items()])


def build_runner(args: argparse.Namespace, work_dir: str) -> 'Runner':
    """The runner of what the command line asks for."""
    if args.model.endswith('.py'):
        from zoo.training import evaluation, runner

        if args.img_size or args.crop_pct or args.split:
            raise ValueError('the config says size, crop and split: override them with --cfg-options')
        place = {'data_root': args.data} if args.data else {}
        config = runner.read_config(args.model, train.options(args.cfg_options) | place)
        return evaluation.config_tester(config, args.weights, work_dir)
    name = _console.known_model(args.model)
    if not args.data:
        raise ValueError(f'{name} is no config: name the data too')
    if args.cfg_options:
        raise ValueError(f'{name} is no config: --cfg-options has nothing to override')
    from zoo.training import evaluation

    dataset = evaluation.dataset_at(args.data, args.split)
    return evaluation.model_tester(name, args.weights, dataset, work_dir, args.img_size, args.crop_pct)


def describe(args: argparse.Namespace, runner: 'Runner') -> dict[str, Any]:
    """What was measured, where and when, by the names of the table's columns."""
    dataset: Any = runner.test_loop.dataloader.dataset
    place = getattr(dataset, 'name', '') or Path(args.data or getattr(dataset, 'data_root', None) or '').stem
    folder = Path(next(iter(getattr(dataset, 'data_prefix', {}).values()), '')).name
    return {
        'model': getattr(runner.model, 'name', Path(args.model).stem),
        'dataset': args.dataset or place,
        'split': getattr(dataset, 'split', folder),
        'images': len(dataset),
        'resolution': max(dataset[0]['inputs'].shape[-2:]),
        'weights': args.weights,
        'config': args.model if args.model.endswith('.py') else '',
        'seed': seed_of(args.weights),
        'date': datetime.date.today().isoformat(),
        'commit': commit(),
        'device': device(),
    }


def seed_of(weights: str) -> str:
    """The seed that a .safetensors file of ours notes, if it does."""
    from safetensors import safe_open

    if not weights.endswith('.safetensors') or not Path(weights).is_file():
        return ''
    with safe_open(weights, 'pt') as file:
        return (file.metadata() or {}).get('seed', '')


def commit() -> str:
    """The commit of this project's working copy, empty where there is none."""
    command = ['git', '-C', str(Path(__file__).parent), 'rev-parse', '--short', 'HEAD']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def device() -> str:
    """The accelerator's name, or `cpu` with the machine's architecture."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f'cpu {platform.machine()}'


def check_table(path: Path) -> None:
    """Refuses a table of other columns before anything is measured."""
    if path.exists():
        with path.open(newline='') as file:
            header = next(csv.reader(file), [])
        if header != list(COLUMNS):
            raise ValueError(f'{path} is no table of results: its columns are {header}, not {list(COLUMNS)}')


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Adds rows to a table, which is made when it is not there; all of them or none."""
    from checkpoints.files import replacing

    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, COLUMNS, extrasaction='ignore', lineterminator='\n')
    if not path.exists():
        writer.writeheader()
    writer.writerows(rows)
    before = path.read_text() if path.exists() else ''
    with replacing(path) as temporary:
        temporary.write_text(before + text.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), evaluate, argv)


if __name__ == '__main__':
    raise SystemExit(main())

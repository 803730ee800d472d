"""The project in three steps: classify photographs, train on digits, list the models. `make demo` runs it."""

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools import _console, predict, train
from tools import list as list_models

MODEL = 'nat_pico'
CONFIG = Path(__file__).parents[1] / 'configs' / 'classification' / 'nat' / 'nat_pico_digits.py'
WANTED = 95.0  # percent of the test digits

PHOTOGRAPHS = {
    'chelsea': ('12,10', 'A cat (CC0, Stefan van der Walt): one of the ten classes that the model knows.'),
    'rocket': ('16,16', 'A rocket (public domain, SpaceX): none of the ten, so the model names what is nearest.'),
}
"""Photograph of scikit-image -> pixel whose attention is drawn, of the 32 x 32 that the model sees, and a remark."""


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the demo."""
    parser = argparse.ArgumentParser(prog='python tools/demo.py', description='Shows the project in three steps.')
    parser.add_argument('--out', type=Path, default=Path('outputs/demo'), help='folder of all results (outputs/demo)')
    parser.add_argument('--quick', action='store_true', help='train for one epoch only, whatever comes of it')
    return parser


def demo(args: argparse.Namespace) -> int:
    """Runs the steps and stops at the first that fails; its exit status."""
    require('skimage', 'sklearn', 'matplotlib', 'mmengine')
    steps: dict[str, Callable[[argparse.Namespace], int]] = {
        f'Photographs, classified by {MODEL} trained on CIFAR-10 with the attention of one position': classify,
        f'{MODEL}, trained from scratch on the handwritten digits of scikit-learn': learn,
        'What the zoo holds': hold,
    }
    begin = time.monotonic()
    for number, (title, step) in enumerate(steps.items(), 1):
        print(f'\n== {number} of {len(steps)}: {title}\n', flush=True)
        if status := step(args):
            return status
    print(f'\nDone in {time.monotonic() - begin:.0f} s; everything is in {args.out}')
    return 0


def require(*modules: str) -> None:
    """Refuses to begin where a package of the extra is missing."""
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise ImportError(f"the demo needs {', '.join(missing)}: pip install 'attnzoo[demo]'")


def command(tool: Callable[[Sequence[str]], int], name: str, *arguments: str | Path) -> int:
    """Shows and runs a subcommand; its exit status."""
    words = [str(argument) for argument in arguments]
    print(f'$ attnzoo {" ".join([name, *words])}\n', flush=True)
    return tool(words)


def classify(args: argparse.Namespace) -> int:
    """Writes the photographs and what the model makes of them."""
    from PIL import Image
    from skimage import data

    for name, (pixel, remark) in PHOTOGRAPHS.items():
        path = args.out / f'{name}.png'
        args.out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(getattr(data, name)()).save(path)
        status = command(predict.main, 'predict', MODEL, path, '--attention', pixel, '--out', args.out)
        if status:
            return status
        print(f'{remark}\n')
    return 0


def learn(args: argparse.Namespace) -> int:
    """Trains, and fails where the digits are not learned."""
    from zoo.training.log import CURVE_NAME, LOG_NAME, read_log

    folder = args.out / 'digits'
    shorter = ['--cfg-options', 'train_cfg.max_epochs=1'] if args.quick else []
    status = command(train.main, 'train', os.path.relpath(CONFIG), '--work-dir', folder, *shorter)
    if status:
        return status
    reached = read_log(folder / LOG_NAME)[-1]['top1']
    print(f'\n{reached:.1f} % of the test digits are right; picture: {folder / CURVE_NAME}')
    if reached > WANTED or args.quick:
        return 0
    print(f'attnzoo: error: more than {WANTED:.0f} % were expected', file=sys.stderr)
    return _console.FAILED


def hold(args: argparse.Namespace) -> int:
    """Lists the models."""
    return command(list_models.main, 'list')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and returns its exit status."""
    return _console.run(build_parser(), demo, argv)


if __name__ == '__main__':
    raise SystemExit(main())

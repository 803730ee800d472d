"""The console command `attnzoo`: `attnzoo NAME ...` is `python tools/NAME.py ...`.

A subcommand's module is imported only when it is called, so that the help needs neither torch nor timm.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version

COMMANDS = {
    'list': 'models of the zoo: parameters, multiply-adds, weights',
    'info': 'one model: stages, cost, weights in the catalogue, coverage of a checkpoint',
    'predict': 'classes of images',
    'train': 'train a model by a config file',
    'evaluate': 'accuracy of a model on a data set',
    'benchmark': 'time models and operators side by side',
    'convert': "an authors' checkpoint to safetensors, with a report",
    'export': 'a model to TorchScript, torch.export or ONNX, checked against eager',
    'check-golden': "compare with reference numbers of the authors' code",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command itself; what follows the subcommand's name is left to the subcommand."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog='attnzoo',
        description='The attention backbones of the vision papers, and what one does with them.',
        epilog='commands:\n' + '\n'.join(f'  {name:<{width}}  {what}' for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help='see below; COMMAND --help says more')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='...', help='arguments of the command')
    return parser


def versions() -> str:
    """``attnzoo 0.1.0 (torch 2.8.0, timm 1.0.20, Python 3.10.1)``, without importing any of them."""
    python = '.'.join(map(str, sys.version_info[:3]))
    return f'attnzoo {version("attnzoo")} (torch {version("torch")}, timm {version("timm")}, Python {python})'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return 0
    args = parser.parse_args(arguments)
    tool = importlib.import_module(f'tools.{args.command.replace("-", "_")}')
    return tool.main(args.arguments)


if __name__ == '__main__':
    raise SystemExit(main())

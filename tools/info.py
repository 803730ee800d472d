"""Describes one model: `attnzoo info dinat_tiny --weights dinat_tiny_in1k_224.pth`."""

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tools import _console

if TYPE_CHECKING:
    from torch import nn

    from checkpoints import Checkpoint, Coverage
    from zoo.profile import Profile

COUNTED = 'convolutions, linear layers, matrix products, attention; no norms, no activations'


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='attnzoo info',
        description="Describe one model of timm's registry, ours included: its stages, parameters and multiply-adds, "
        'its weights in the catalogue, and what of it a checkpoint covers.',
    )
    parser.add_argument('model', help='a name of `attnzoo list` or of timm')
    parser.add_argument(
        '--img-size', type=int, nargs='+', metavar='PIXELS', help="H W, or one side (the model's default)"
    )
    parser.add_argument('--weights', metavar='FILE', help='report what this checkpoint covers; exit 1 when not all')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def show(args: argparse.Namespace) -> int:
    """Prints the description; returns `FAILED` when a checkpoint is given that does not cover the model."""
    from zoo import profile

    name = _console.known_model(args.model)
    img_size = _console.image_size(args.img_size)
    counted = profile.profile(name, img_size)
    model = profile.on_meta(name)
    covered = coverage_of(model, args.weights) if args.weights else None
    show_as = print_json if args.json else print_text
    show_as(name, model, counted, covered)
    return _console.FAILED if covered is not None and not covered.complete else 0


def coverage_of(model: 'nn.Module', source: str) -> 'Coverage':
    """What a checkpoint covers of a model on the meta device, under its key rules; nothing is loaded."""
    import checkpoints
    from zoo import weights

    state_dict = checkpoints.read_state_dict(checkpoints.locate(source))
    return checkpoints.coverage(model.state_dict(), weights.fit(model, state_dict))


def catalogue_of(name: str) -> Mapping[str, 'Checkpoint']:
    """The entries of one of this project's models, tag -> entry; empty for others."""
    import checkpoints
    import zoo

    model = name.partition('.')[0]
    family = zoo.family_of(model) if model in zoo.list_models() else ''
    return checkpoints.catalogue(family).get(model, {}) if family in checkpoints.families() else {}


def measured(name: str) -> list[dict[str, str]]:
    """The rows of `checkpoints/results.csv` for a model, with any of its weights."""
    from checkpoints.entries import FOLDER

    with (FOLDER / 'results.csv').open(newline='', encoding='utf-8') as file:
        return [row for row in csv.DictReader(file) if row['model'].partition('.')[0] == name.partition('.')[0]]


def architecture(model: 'nn.Module') -> dict[str, Any]:
    """What a model says of itself."""
    return {
        'class': f'{type(model).__module__}.{type(model).__name__}',
        'num_classes': getattr(model, 'num_classes', None),
        'num_features': getattr(model, 'num_features', None),
        'features': [dict(info) for info in getattr(model, 'feature_info', ())],
    }


def print_json(name: str, model: 'nn.Module', counted: 'Profile', covered: 'Coverage | None') -> None:
    """All of it as one JSON object."""
    found: dict[str, Any] = {'model': name, **architecture(model), **asdict(counted)}
    found['weights'] = {tag: asdict(entry) for tag, entry in catalogue_of(name).items()}
    found['measured'] = measured(name)
    if covered is not None:
        found['coverage'] = {'complete': covered.complete, **asdict(covered)}
    print(json.dumps(found, indent=2))


def print_text(name: str, model: 'nn.Module', counted: 'Profile', covered: 'Coverage | None') -> None:
    """The description as tables."""
    described = architecture(model)
    params, macs = _console.millions(counted.parameters), _console.billions(counted.macs)
    size = 'x'.join(map(str, counted.input_size))
    print(f'{name}: {described["class"]}, {described["num_classes"]} classes, {described["num_features"]} features')
    print(f'{params} M parameters, {macs} G multiply-adds at {size} (counted: {COUNTED})')
    columns = ('part', 'what', 'channels', 'pixels per position', 'params M', 'MACs G')
    _console.print_table(columns, part_rows(model, counted))
    entries = catalogue_of(name)
    for entry in entries.values():
        print_entry(entry)
    if not entries:
        print('no weights in the catalogue')
    for row in measured(name):
        at = f'{row["resolution"]} pixels, {row["weights"]}, {row["date"]}, {row["device"]}'
        print(f'  measured here   {row["dataset"]} {row["split"]} {row["metric"]} {row["value"]} ({at})')
    if covered is not None:
        print(f'\n{covered.report(limit=50)}')


def part_rows(model: 'nn.Module', counted: 'Profile') -> list[tuple[object, ...]]:
    """One line per part: what it is, what it gives as a feature, and its cost."""
    features = {info['module']: info for info in getattr(model, 'feature_info', ())}
    lines: list[tuple[object, ...]] = []
    for part in counted.parts:
        info = features.get(part.name, {})
        cost = f'{part.parameters / 1e6:.3f}', f'{part.macs / 1e9:.3f}'
        lines.append((part.name, summary(model, part.name), info.get('num_chs'), info.get('reduction'), *cost))
    return lines


def summary(model: 'nn.Module', name: str) -> str:
    """``'4 x PreNormBlock (NeighborhoodAttention2D)'`` for a stage of blocks, else the class."""
    from torch import nn

    part = getattr(model, name, None) if '.' not in name else model.get_submodule(name)
    blocks = getattr(part, 'blocks', None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        return type(part).__name__
    inner = (getattr(block, part, None) for block in blocks for part in ('mixer', 'gate', 'inner_gate'))
    kinds = dict.fromkeys(type(module).__name__ for module in inner if not isinstance(module, nn.Identity | None))
    return f'{len(blocks)} x {type(blocks[0]).__name__}' + (f' ({", ".join(kinds)})' if kinds else '')


def print_entry(entry: 'Checkpoint') -> None:
    """One weight file of the catalogue, a line per field that it has."""
    print(f'\n{entry.name}')
    quoted = {
        'top-1 (quoted)': entry.paper_top1 and f'{entry.paper_top1} %',
        'cost (quoted)': entry.paper_flops and f'{entry.paper_params} M parameters, {entry.paper_flops} G',
    }
    fields = ('url', 'file', 'hf_hub_id', 'sha256', 'bytes', 'license', 'code', 'paper', 'note')
    values = {field: getattr(entry, field) for field in fields}
    values['mirrors'] = ', '.join(entry.mirrors) or None
    for label, value in {**values, **quoted}.items():
        if value is not None:
            print(f'  {label:<15} {value}')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), show, argv)


if __name__ == '__main__':
    raise SystemExit(main())

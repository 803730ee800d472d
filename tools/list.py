"""Lists the models of the zoo: `attnzoo list 'dinat*' --pretrained`."""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tools import _console

if TYPE_CHECKING:
    from checkpoints import Checkpoint


@dataclass(frozen=True)
class Row:
    """One model: its cost at its default input size (C, H, W), and its weights, the default first."""

    model: str
    family: str
    input_size: tuple[int, ...]
    parameters: int
    macs: int
    weights: tuple['Checkpoint', ...]


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='attnzoo list',
        description='List the models of the zoo: parameters, multiply-adds at the default input size, weights in the '
        'catalogue and the ImageNet-1k top-1 accuracy that the papers state for the first of them.',
    )
    parser.add_argument('pattern', nargs='?', default='*', help="shell pattern such as 'nat_*', or a part of a name")
    parser.add_argument('--family', help='only this family')
    parser.add_argument('--pretrained', action='store_true', help='only models with weights in the catalogue')
    parser.add_argument('--json', action='store_true', help='print one JSON list, with all that the catalogue holds')
    return parser


def rows(pattern: str = '*', family: str | None = None) -> Iterator[Row]:
    """Every model that matches, in order of registration."""
    from timm.models import get_pretrained_cfg_value

    import checkpoints
    import zoo
    from zoo import profile

    known = profile.recorded()
    for name in zoo.list_models(pattern):
        own = zoo.family_of(name)
        if family not in (None, own):
            continue
        if name not in known:
            counted = profile.profile(name)
            known[name] = counted.parameters, counted.macs
        entries = checkpoints.catalogue(own).get(name, {}) if own in checkpoints.families() else {}
        size = tuple(get_pretrained_cfg_value(name, 'input_size') or ())
        yield Row(name, own, size, *known[name], tuple(entries.values()))


def show(args: argparse.Namespace) -> None:
    """Prints the models that match."""
    import zoo

    families = sorted({zoo.family_of(name) for name in zoo.list_models()})
    if args.family not in (None, *families):
        raise ValueError(f'no family {args.family!r}; there are {", ".join(families)}')
    pattern = args.pattern if set(args.pattern) & set('*?[') else f'*{args.pattern}*'
    found = [row for row in rows(pattern, args.family) if row.weights or not args.pretrained]
    if args.json:
        print(json.dumps([asdict(row) for row in found], indent=2))
        return
    if not found:
        near = _console.did_you_mean(_console.nearest(args.pattern, zoo.list_models()))
        raise ValueError(f'no model matches {args.pattern!r}{near}')
    columns = ('model', 'params M', 'MACs G', 'input', 'weights', 'top-1 % (quoted)')
    _console.print_table(columns, map(cells, found))


def cells(row: Row) -> tuple[object, ...]:
    """One line of the table."""
    top1 = row.weights[0].paper_top1 if row.weights else None
    tags = ', '.join(entry.tag for entry in row.weights) or None
    millions, billions = _console.millions(row.parameters), _console.billions(row.macs)
    return row.model, millions, billions, 'x'.join(map(str, row.input_size[1:])), tags, top1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), show, argv)


if __name__ == '__main__':
    raise SystemExit(main())

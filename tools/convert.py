"""Converts an authors' checkpoint: `attnzoo convert nat_mini.pth nat_mini.safetensors --model nat_mini`.

The tensors keep their values, only their names and axes of length 1 change; beside the weights lies a report of what
became of every key.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import _console

if TYPE_CHECKING:
    from torch import Tensor, nn

    from checkpoints import Coverage, Rules


@dataclass(frozen=True)
class Entry:
    """One tensor: the authors' name, ours (None when it is dropped), its shape and its type."""

    source: str
    target: str | None
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Report:
    """What was converted into what, with what a catalogue entry needs: `sha256` and `bytes` of the result."""

    model: str
    num_classes: int
    source: str
    source_sha256: str
    output: str
    sha256: str
    bytes: int
    attnzoo: str
    entries: tuple[Entry, ...]


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='attnzoo convert',
        description="Convert an authors' checkpoint to this project's names as safetensors, with a report. A "
        'checkpoint that does not cover the model, or holds more, is refused.',
    )
    parser.add_argument('source', metavar='IN', help='checkpoint: a file, a url or hf-hub:owner/name')
    parser.add_argument('output', metavar='OUT', type=Path, help='the .safetensors file to write')
    parser.add_argument('--model', help='whose weights these are (the one model they fit)')
    parser.add_argument('--report', type=Path, metavar='FILE', help='.md or .json file (OUT with the suffix .md)')
    parser.add_argument('--no-ema', action='store_true', help='take the raw weights, not the averaged ones of the file')
    parser.add_argument('--force', action='store_true', help='replace files that exist')
    return parser


def convert(args: argparse.Namespace) -> None:
    """Converts one checkpoint and prints what to paste into the catalogue."""
    import checkpoints
    from zoo.weights import translated

    report_path = args.report or args.output.with_suffix('.md')
    check_paths(args.output, report_path, args.force)
    name = _console.known_model(args.model) if args.model else None
    path = checkpoints.locate(args.source)
    state_dict = checkpoints.read_state_dict(path, use_ema=not args.no_ema)
    if name is None:
        name = guess(state_dict)
    model = model_for(name, state_dict)
    renamed = rename(state_dict, model)
    covered = checkpoints.coverage(model.state_dict(), renamed)
    if not covered.complete:
        raise ValueError(f'{path} are not the weights of {name}; nothing was written.\n{covered.report()}')
    origin = path.name if Path(args.source).exists() else args.source
    source = {'model': name, 'source': origin, 'source_sha256': checkpoints.sha256_of(path)}
    checkpoints.save_safetensors(renamed, args.output, {**source, 'attnzoo': version('attnzoo')})
    report = Report(
        **source,
        num_classes=getattr(model, 'num_classes', 0),
        output=args.output.name,
        sha256=checkpoints.sha256_of(args.output),
        bytes=args.output.stat().st_size,
        attnzoo=version('attnzoo'),
        entries=tuple(entries(translated(model, state_dict), rules_of(model))),
    )
    write_report(report, report_path)
    print(f'{name}: {len(renamed)} tensors in {args.output}, report in {report_path}; for the catalogue:')
    print(f'num_classes = {report.num_classes}\nsha256 = "{report.sha256}"\nbytes = {report.bytes}')


def check_paths(output: Path, report: Path, force: bool) -> None:
    """Raises ValueError where a path has the wrong suffix or would replace a file without `force`."""
    if output.suffix != '.safetensors':
        raise ValueError(f'OUT must end in .safetensors, got {output}')
    if report.suffix not in ('.md', '.json'):
        raise ValueError(f'--report must end in .md or .json, got {report}')
    for path in (output, report):
        if path.exists() and not force:
            raise ValueError(f'{path} exists: choose another name, or replace it with --force')


def rules_of(model: 'nn.Module') -> 'Rules':
    """The key rules of a family of ours, none for a model of timm."""
    return getattr(model, 'key_rules', ())


def rename(state_dict: 'Mapping[str, Tensor]', model: 'nn.Module') -> 'dict[str, Tensor]':
    """The tensors under our names; a linear layer that is a 1 x 1 convolution there, or the reverse, in our shape."""
    from zoo import weights

    renamed, ours = weights.renamed(model, state_dict), model.state_dict()
    for key, tensor in renamed.items():
        if key in ours and [n for n in tensor.shape if n > 1] == [n for n in ours[key].shape if n > 1]:
            renamed[key] = tensor.reshape(ours[key].shape)
    return renamed


def model_for(name: str, state_dict: 'dict[str, Tensor]') -> 'nn.Module':
    """The model on the meta device, with as many classes as the checkpoint has."""
    from zoo.inference import classes_of
    from zoo.profile import on_meta

    model: Any = on_meta(name)
    classes = classes_of(model, state_dict)
    return model if classes == model.num_classes else on_meta(name, num_classes=classes)


def guess(state_dict: 'Mapping[str, Tensor]') -> str:
    """The one model of this project that the checkpoint covers exactly.

    Raises:
        ValueError: none or several; names them.
    """
    import zoo

    covered = {name: coverage_of(name, state_dict) for name in zoo.list_models()}
    fitting = [name for name, coverage in covered.items() if coverage.complete]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(f'the checkpoint fits {", ".join(fitting)} alike: choose one with --model')
    near = sorted(covered, key=lambda name: covered[name].matched, reverse=True)[:3]
    raise ValueError(
        'the checkpoint fits no model of the zoo: name one with --model to see what differs; nearest are '
        + ', '.join(f'{name} ({covered[name].matched} of {len(state_dict)} tensors)' for name in near)
    )


def coverage_of(name: str, state_dict: 'Mapping[str, Tensor]') -> 'Coverage':
    """What a checkpoint covers of a model of this project as it is published, position tables not resized."""
    import checkpoints
    from zoo.profile import on_meta

    model = on_meta(name)
    try:
        renamed = rename(state_dict, model)
    except checkpoints.CheckpointError:  # the rules of another family may give two keys one name
        renamed = {}
    return checkpoints.coverage(model.state_dict(), renamed)


def entries(state_dict: 'Mapping[str, Tensor]', rules: 'Rules') -> list[Entry]:
    """What becomes of every tensor."""
    import checkpoints

    found, table = [], checkpoints.table_for(state_dict, rules)
    for key, tensor in state_dict.items():
        target = next(iter(checkpoints.remap_keys({key: tensor}, table)), None)
        found.append(Entry(key, target, tuple(tensor.shape), str(tensor.dtype).removeprefix('torch.')))
    return found


def write_report(report: Report, path: Path) -> None:
    """Writes the report as Markdown or JSON, by the suffix of `path`."""
    from checkpoints.files import replacing

    text = json.dumps(asdict(report), indent=1) if path.suffix == '.json' else markdown(report)
    with replacing(path) as temporary:
        temporary.write_text(text + '\n', encoding='utf-8')


def markdown(report: Report) -> str:
    """The report as a list of facts and a table of keys."""
    facts = {key: value for key, value in asdict(report).items() if key != 'entries'}
    lines = [f'# {report.source} -> {report.output}', '', *(f'- {key}: {value}' for key, value in facts.items()), '']
    lines += ["| authors' key | our key | shape | dtype |", '|---|---|---|---|']
    for entry in report.entries:
        lines.append(f'| {entry.source} | {entry.target or "(dropped)"} | {list(entry.shape)} | {entry.dtype} |')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), convert, argv)


if __name__ == '__main__':
    raise SystemExit(main())

"""Converts an authors' checkpoint: `attnzoo convert nat_mini.pth nat_mini.safetensors --model nat_mini`.

The tensors keep their values, only their names and axes of length 1 change; beside the weights lies a report of what
became of every key. For a whole detector or segmentor its config file is the model, and position tables get its sizes.
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

    from checkpoints import Coverage


@dataclass(frozen=True)
class Entry:
    """One tensor: the authors' name, ours (None when it is dropped), its shape and its type."""

    source: str
    target: str | None
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Conversion:
    """What becomes of a checkpoint.

    Args:
        name: of the model, or of its config.
        model: on the meta device.
        classes: that the model tells apart, 0 where it tells none.
        given: tensors of the checkpoint in torch's layout.
        named: the same under our names.
        written: the same in our shapes.
    """

    name: str
    model: 'nn.Module'
    classes: int
    given: 'Mapping[str, Tensor]'
    named: 'Mapping[str, Tensor]'
    written: 'Mapping[str, Tensor]'


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
    parser.add_argument('--model', help='whose weights these are, or a config file (the one model of ours they fit)')
    parser.add_argument('--report', type=Path, metavar='FILE', help='.md or .json file (OUT with the suffix .md)')
    parser.add_argument('--no-ema', action='store_true', help='take the raw weights, not the averaged ones of the file')
    parser.add_argument('--force', action='store_true', help='replace files that exist')
    return parser


def convert(args: argparse.Namespace) -> None:
    """Converts one checkpoint and prints what to paste into the catalogue."""
    import checkpoints

    report_path = args.report or args.output.with_suffix('.md')
    check_paths(args.output, report_path, args.force)
    config = args.model if args.model and args.model.endswith('.py') else None
    name = _console.known_model(args.model) if args.model and not config else None
    path = checkpoints.locate(args.source)
    state_dict = checkpoints.read_state_dict(path, use_ema=not args.no_ema)
    plan = of_config(config, state_dict) if config else of_model(name or guess(state_dict), state_dict)
    covered = checkpoints.coverage(plan.model.state_dict(), plan.written)
    if not covered.complete:
        raise ValueError(f'{path} are not the weights of {plan.name}; nothing was written.\n{covered.report()}')
    origin = path.name if Path(args.source).exists() else args.source
    source = {'model': plan.name, 'source': origin, 'source_sha256': checkpoints.sha256_of(path)}
    checkpoints.save_safetensors(plan.written, args.output, {**source, 'attnzoo': version('attnzoo')})
    report = Report(
        **source,
        num_classes=plan.classes,
        output=args.output.name,
        sha256=checkpoints.sha256_of(args.output),
        bytes=args.output.stat().st_size,
        attnzoo=version('attnzoo'),
        entries=tuple(entries(plan)),
    )
    write_report(report, report_path)
    print(f'{plan.name}: {len(plan.written)} tensors in {args.output}, report in {report_path}; for the catalogue:')
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


def of_model(name: str, state_dict: 'dict[str, Tensor]') -> Conversion:
    """The conversion of a classifier's weights."""
    import checkpoints
    from zoo import weights

    model = model_for(name, state_dict)
    given = weights.translated(model, state_dict)
    named = checkpoints.remap_keys(given, getattr(model, 'key_rules', ()))
    return Conversion(name, model, getattr(model, 'num_classes', 0), given, named, in_our_shape(named, model))


def of_config(path: str, state_dict: 'dict[str, Tensor]') -> Conversion:
    """The conversion of the weights of a whole detector or segmentor."""
    import torch

    from zoo.training.checks import heads_of
    from zoo.training.runner import DENSE, read_config

    config = read_config(path)
    if config.get('default_scope') not in DENSE:
        raise ValueError(f'{path} trains a classifier: name its model instead')
    from zoo.openmmlab import weights
    from zoo.openmmlab.inference import build_model

    with torch.device('meta'):
        model = build_model(config)
    classes = max((head.num_classes for _, head in heads_of(model)), default=0)
    named, fitted = weights.renamed(model, state_dict), weights.fit(model, state_dict)
    return Conversion(Path(path).stem, model, classes, state_dict, named, fitted)


def in_our_shape(named: 'Mapping[str, Tensor]', model: 'nn.Module') -> 'dict[str, Tensor]':
    """A linear layer that is a 1 x 1 convolution in the model, or the reverse, as the model has it; others stay."""
    ours = model.state_dict()
    return {
        key: tensor.reshape(ours[key].shape)
        if key in ours and [n for n in tensor.shape if n > 1] == [n for n in ours[key].shape if n > 1]
        else tensor
        for key, tensor in named.items()
    }


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
    from zoo import weights
    from zoo.profile import on_meta

    model = on_meta(name)
    try:
        renamed = in_our_shape(weights.renamed(model, state_dict), model)
    except checkpoints.CheckpointError:  # the rules of another family may give two keys one name
        renamed = {}
    return checkpoints.coverage(model.state_dict(), renamed)


def entries(plan: Conversion) -> list[Entry]:
    """What becomes of every tensor."""
    targets = {id(tensor): key for key, tensor in plan.named.items()}
    return [
        Entry(key, targets.get(id(tensor)), tuple(tensor.shape), str(tensor.dtype).removeprefix('torch.'))
        for key, tensor in plan.given.items()
    ]


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

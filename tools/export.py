"""Exports a model: `attnzoo export nat_pico nat_pico.onnx --dynamic-batch`.

The file is compared with the model in eager mode before it takes its name; it carries what is needed to prepare images.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import _console

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4  # largest difference over the largest logit; float32 noise of deep models is near 1e-6


@dataclass(frozen=True)
class Plan:
    """What is exported and how.

    Args:
        model: in evaluation mode.
        images: an example, (B, C, H, W).
        dynamic: any B is to be taken.
        opset: of ONNX, the exporter's choice when None.
        about: texts to store in the file.
    """

    model: Any
    images: 'Tensor'
    dynamic: bool
    opset: int | None
    about: dict[str, str]


@dataclass(frozen=True)
class Format:
    """A kind of file: its name and suffix, the packages it needs, how it is written and how it is read to be run."""

    name: str
    suffix: str
    needs: tuple[str, ...]
    write: Callable[[Plan, Path], None]
    read: 'Callable[[Path], Callable[[Tensor], Tensor]]'


def write_torchscript(plan: Plan, path: Path) -> None:
    """A trace: any batch, but one size of images."""
    import torch

    traced = torch.jit.trace(plan.model, (plan.images,), check_trace=False)
    torch.jit.save(traced, path, _extra_files=plan.about)


def read_torchscript(path: Path) -> 'Callable[[Tensor], Tensor]':
    """The traced module."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)  # torch prefers torch.export
        return torch.jit.load(path)


def dynamic_shapes(plan: Plan) -> tuple[dict[int, Any]] | None:
    """The batch as a free dimension where that is wanted."""
    import torch

    return ({0: torch.export.Dim('batch')},) if plan.dynamic else None


def write_torch_export(plan: Plan, path: Path) -> None:
    """An ExportedProgram."""
    import torch

    program = torch.export.export(plan.model, (plan.images,), dynamic_shapes=dynamic_shapes(plan))
    with path.open('wb') as file:
        torch.export.save(program, file, extra_files=plan.about)


def read_torch_export(path: Path) -> 'Callable[[Tensor], Tensor]':
    """The exported program as a module."""
    import torch

    with path.open('rb') as file:
        return torch.export.load(file).module()


def write_onnx(plan: Plan, path: Path) -> None:
    """ONNX with the weights inside, input `images`, output `logits`."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # The CPU's fused attention returns other strides than its decomposition, and the exporter stumbles over that.
    with sdpa_kernel(SDPBackend.MATH):
        program = torch.onnx.export(
            plan.model,
            (plan.images,),
            dynamo=True,
            verbose=False,
            opset_version=plan.opset,
            dynamic_shapes=dynamic_shapes(plan),
            input_names=['images'],
            output_names=['logits'],
        )
    assert program is not None
    program.model.metadata_props.update(plan.about)
    program.save(path, external_data=False)


def read_onnx(path: Path) -> 'Callable[[Tensor], Tensor]':
    """A session of onnxruntime on the CPU."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(['logits'], {'images': images.numpy()})[0])


FORMATS = (
    Format('torchscript', '.pt', (), write_torchscript, read_torchscript),
    Format('torch-export', '.pt2', (), write_torch_export, read_torch_export),
    Format('onnx', '.onnx', ('onnx', 'onnxscript', 'onnxruntime'), write_onnx, read_onnx),
)


class DisagreementError(Exception):
    """The exported file and the model compute different numbers."""


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='attnzoo export',
        description='Export a model and compare the file with eager mode; a file that disagrees is not kept (exit 1).',
    )
    parser.add_argument('model', help='name of a model of this project or of timm, also with a weight tag')
    parser.add_argument('output', metavar='OUT', type=Path, help='file to write: .pt, .pt2 or .onnx')
    parser.add_argument('--format', choices=[known.name for known in FORMATS], help='when the suffix of OUT is another')
    weights = "those of the catalogue if absent; 'none' for random ones"
    parser.add_argument('--weights', default='pretrained', metavar='FILE|URL', help=weights)
    parser.add_argument('--img-size', type=int, metavar='N', help="pixels per side of the images (the model's own)")
    parser.add_argument('--batch-size', type=int, default=1, metavar='B', help='images per call (1)')
    parser.add_argument('--dynamic-batch', action='store_true', help='take any number of images per call')
    parser.add_argument('--opset', type=int, metavar='N', help="of ONNX (the exporter's choice)")
    parser.add_argument('--force', action='store_true', help='replace a file that exists')
    return parser


def export(args: argparse.Namespace) -> int:
    """Exports and verifies; returns `FAILED` when the file disagrees with the model."""
    from checkpoints.files import replacing

    kind = chosen_format(args.output, args.format)
    if args.output.exists() and not args.force:
        raise ValueError(f'{args.output} exists: choose another name, or replace it with --force')
    if args.batch_size < 1:
        raise ValueError(f'--batch-size must be at least 1, got {args.batch_size}')
    plan = make_plan(args)
    batches = (1, 3) if args.dynamic_batch else (args.batch_size,)
    try:
        with replacing(args.output) as temporary:
            write(kind, plan, temporary)
            worst = largest_error(plan, kind.read(temporary), batches)
    except DisagreementError as disagreement:
        print(f'attnzoo: {args.output} was not written: {disagreement}', file=sys.stderr)
        return _console.FAILED
    shape = 'x'.join(['B' if plan.dynamic else str(args.batch_size), *map(str, plan.images.shape[1:])])
    print(f'{args.model} as {kind.name} in {args.output}: input {shape}, {args.output.stat().st_size} bytes')
    print(f'largest difference from eager {worst:.1e} of the largest logit (allowed {TOLERANCE:.0e})')
    return 0


def chosen_format(output: Path, name: str | None) -> Format:
    """The named format, else that of the file's suffix.

    Raises:
        ValueError: neither says it.
        ImportError: a package it needs is not installed.
    """
    matching = [kind for kind in FORMATS if (kind.suffix == output.suffix if name is None else kind.name == name)]
    if not matching:
        suffixes = ', '.join(f'{kind.suffix} ({kind.name})' for kind in FORMATS)
        raise ValueError(f'the suffix of {output} names no format: use one of {suffixes}, or --format')
    kind = matching[0]
    missing = [package for package in kind.needs if find_spec(package) is None]
    if missing:
        raise ImportError(f'{kind.name} needs {", ".join(missing)}: pip install "attnzoo[export]"')
    return kind


def make_plan(args: argparse.Namespace) -> Plan:
    """The model with its weights, and an example of its input."""
    import timm
    import torch
    from timm.data import resolve_model_data_config

    from zoo import inference

    name = _console.known_model(args.model)
    with timm.layers.set_layer_config(exportable=True):
        untrained = args.weights == 'none'
        model = timm.create_model(name).eval() if untrained else inference.load_classifier(name, args.weights)
    if args.img_size is not None:
        inference.resize_input(model, args.img_size)
    config = resolve_model_data_config(model)
    channels, height, width = config['input_size']
    height, width = (args.img_size or height), (args.img_size or width)
    preparation = {key: config[key] for key in ('mean', 'std', 'interpolation', 'crop_pct', 'crop_mode')}
    about = {'model': name, 'input_size': (channels, height, width), **preparation, 'attnzoo': version('attnzoo')}
    generator = torch.Generator().manual_seed(0)
    # A dynamic batch of 1 would be taken for a constant.
    images = torch.randn(2 if args.dynamic_batch else args.batch_size, channels, height, width, generator=generator)
    return Plan(model, images, args.dynamic_batch, args.opset, {key: json.dumps(value) for key, value in about.items()})


def write(kind: Format, plan: Plan, path: Path) -> None:
    """Writes the file, quietly.

    Raises:
        ValueError: the exporter cannot express the model.
    """
    import torch

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # tracers warn of every shape they freeze: the comparison judges instead
            kind.write(plan, path)
    except OSError:
        raise
    except Exception as error:  # each exporter has its own family of errors
        reason = first_line(error)
        raise ValueError(f'the model cannot be exported as {kind.name}: {reason} (--debug shows all)') from error


def first_line(error: Exception) -> str:
    """The first line of a message, the type of an error without one."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def largest_error(plan: Plan, exported: 'Callable[[Tensor], Tensor]', batches: Sequence[int]) -> float:
    """Largest difference over the largest logit, of batches made from the example.

    Raises:
        DisagreementError: it is above `TOLERANCE` or no number, or the file cannot take such a batch.
    """
    import torch

    worst = 0.0
    for batch in batches:
        images = plan.images[torch.arange(batch) % len(plan.images)].flip(-1)
        with torch.no_grad():
            expected = plan.model(images)
            try:
                found = exported(images)
            except Exception as failure:  # each runtime has its own family of errors
                raise DisagreementError(f'it cannot be run on {batch} images: {first_line(failure)}') from failure
        error = ((found - expected).abs().max() / expected.abs().max()).item()
        if not error <= TOLERANCE:
            raise DisagreementError(f'it differs from eager by {error:.1e} of the largest logit on {batch} images')
        worst = max(worst, error)
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), export, argv)


if __name__ == '__main__':
    raise SystemExit(main())

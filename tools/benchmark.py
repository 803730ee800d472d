"""Times models or the backends of an operator side by side: `attnzoo benchmark model nat_mini resnet50`.

All candidates of a case take turns in one process; reported are medians with quartiles, and the time relative to the
first candidate round by round.
"""

import argparse
import csv
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import _console

if TYPE_CHECKING:
    import torch

    from zoo.measure import Task

MODES = ('forward', 'forward+backward')
DTYPES = ('float32', 'bfloat16', 'float16')
NAT_MAPS = ('56x56x2', '28x28x4', '14x14x8', '7x7x16')  # height x width x heads of NAT's four stages at 224 pixels


@dataclass(frozen=True)
class Case:
    """Candidates that do the same: its name, `forward` or `forward+backward`, the tasks by name, samples per call."""

    name: str
    mode: str
    tasks: 'dict[str, Task]'
    batch: int


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='attnzoo benchmark',
        description="Time models ('model NAME...') or the backends of an operator ('op na2d') in turns in one process.",
    )
    parser.add_argument('kind', choices=('model', 'op'), help='what the names are')
    parser.add_argument('names', nargs='+', metavar='NAME', help='models, the first is the baseline; or na2d')
    parser.add_argument('--mode', choices=(*MODES, 'both'), default='both', help='backward: with forward')
    parser.add_argument('--batch-size', type=int, default=4, metavar='B', help='images or maps per call (4)')
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='of parameters and inputs (float32)')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (cpu)')
    parser.add_argument('--threads', type=int, metavar='N', help="of the CPU (torch's choice)")
    parser.add_argument('--compile', action='store_true', help='run everything through torch.compile')
    parser.add_argument('--rounds', type=int, default=15, metavar='N', help='samples of each candidate (15)')
    parser.add_argument('--min-seconds', type=float, default=0.1, metavar='S', help='length of one sample (0.1)')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write a row per case and candidate')
    model = parser.add_argument_group('models')
    model.add_argument('--img-size', type=int, metavar='N', help="pixels per side (the first model's own)")
    op = parser.add_argument_group('na2d')
    op.add_argument('--maps', nargs='+', default=NAT_MAPS, metavar='HxWxN', help=f'with heads ({" ".join(NAT_MAPS)})')
    op.add_argument('--head-dim', type=int, default=32, metavar='D', help='channels per head (32)')
    op.add_argument('--kernel-size', type=int, default=7, metavar='K', help='side of the neighborhood (7)')
    op.add_argument('--dilation', type=int, default=1, metavar='D', help='step between keys (1)')
    op.add_argument('--bias', action='store_true', help='with a relative position bias, which natten does not have')
    op.add_argument('--backends', nargs='+', metavar='NAME', help='only these of ours')
    return parser


def benchmark(args: argparse.Namespace, argv: Sequence[str]) -> None:
    """Measures every case, prints a table for each and writes the CSV file after the last, with the command in it."""
    import torch

    if args.batch_size < 1:
        raise ValueError(f'--batch-size must be at least 1, got {args.batch_size}')
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        raise ValueError('--device cuda: torch sees no CUDA device')
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    cases = model_cases(args) if args.kind == 'model' else op_cases(args)
    rows = []
    for case in cases:
        rows += measured(case, args)
    if args.csv:
        write_csv(rows, {**machine(), 'command': shlex.join(['attnzoo', 'benchmark', *argv])}, args.csv)
        print(f'{len(rows)} rows in {args.csv}')


def model_cases(args: argparse.Namespace) -> Iterator[Case]:
    """One case per mode: all models on the same images, with random weights."""
    import timm
    import torch

    from zoo.inference import resize_input

    names = [_console.known_model(name) for name in args.names]
    where: Any = {'device': args.device, 'dtype': getattr(torch, args.dtype)}
    models: dict[str, Any] = {name: timm.create_model(name) for name in names}
    channels, side, _ = models[names[0]].pretrained_cfg['input_size']
    side = args.img_size or side
    images = torch.randn(args.batch_size, channels, side, side, **where)
    for name, model in models.items():
        if tuple(model.pretrained_cfg['input_size'][1:]) != (side, side):
            resize_input(model, side)
        models[name] = torch.compile(model.to(**where)) if args.compile else model.to(**where)
    for mode in MODES if args.mode == 'both' else (args.mode,):
        for model in models.values():
            model.train(mode != 'forward')
        tasks = {name: model_task(model, images, mode) for name, model in models.items()}
        yield Case(f'batch {args.batch_size} at {side} pixels', mode, tasks, args.batch_size)


def model_task(model: 'torch.nn.Module', images: 'torch.Tensor', mode: str) -> 'Task':
    """One call of a model, with the gradients of all parameters unless `mode` is forward."""
    import torch

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    def forward_backward() -> None:
        model(images).sum().backward()
        model.zero_grad(set_to_none=True)

    return forward if mode == 'forward' else forward_backward


def op_cases(args: argparse.Namespace) -> Iterator[Case]:
    """One case per map and mode: global attention, each of our backends, natten's own function where installed."""
    from ops.window.neighborhood import BACKENDS

    if args.names != ['na2d']:
        raise ValueError(f'the operator that can be measured is na2d, got {" ".join(args.names)}')
    known = [backend.name for backend in BACKENDS]
    if unknown := set(args.backends or ()) - set(known):
        raise ValueError(f'na2d has no backend {", ".join(sorted(unknown))}; it has {", ".join(known)}')
    for text in args.maps:
        for mode in MODES if args.mode == 'both' else (args.mode,):
            yield na2d_case(*map_size(text), mode, args)


def map_size(text: str) -> tuple[int, int, int]:
    """``'56x56x2'`` -> ``(56, 56, 2)``: height, width, heads."""
    parts = text.split('x')
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f'--maps takes HEIGHTxWIDTHxHEADS such as 56x56x2, got {text!r}')
    return int(parts[0]), int(parts[1]), int(parts[2])


def na2d_case(height: int, width: int, heads: int, mode: str, args: argparse.Namespace) -> Case:
    """Neighborhood attention over one map by every means at hand."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from ops.window.neighborhood import BACKENDS, na2d

    where: Any = {'device': args.device, 'dtype': getattr(torch, args.dtype)}
    shape = (args.batch_size, height, width, heads, args.head_dim)
    inputs = [torch.randn(shape, **where, requires_grad=mode != 'forward') for _ in range(3)]
    table = (heads, 2 * args.kernel_size - 1, 2 * args.kernel_size - 1)
    bias = torch.zeros(table, **where, requires_grad=mode != 'forward') if args.bias else None

    def with_backend(name: str) -> Any:
        def run(q: Any, k: Any, v: Any) -> Any:
            return na2d(q, k, v, args.kernel_size, dilation=args.dilation, rel_pos_bias=bias, backend=name)

        return run

    def globally(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v)

    means = {'global sdpa': globally}
    means |= {b.name: with_backend(b.name) for b in BACKENDS if args.backends is None or b.name in args.backends}
    if find_spec('natten') and not args.bias:
        import natten

        means['natten.na2d'] = lambda q, k, v: natten.na2d(q, k, v, args.kernel_size, dilation=args.dilation)
    if args.compile:
        means = {name: torch.compile(run) for name, run in means.items()}
    learned = [*inputs, bias] if bias is not None else inputs
    tasks = {name: op_task(run, inputs, learned, mode) for name, run in means.items()}
    name = f'{height}x{width}, {heads} heads x {args.head_dim}, kernel {args.kernel_size}, dilation {args.dilation}'
    return Case(f'{name}{", bias" if args.bias else ""}, batch {args.batch_size}', mode, tasks, args.batch_size)


def op_task(run: Any, inputs: 'list[torch.Tensor]', learned: 'list[torch.Tensor]', mode: str) -> 'Task':
    """One call of an operator, with the gradients of `learned` (as far as it uses them) unless `mode` is forward."""
    import torch

    def forward() -> None:
        with torch.inference_mode():
            run(*inputs)

    def forward_backward() -> None:
        torch.autograd.grad(run(*inputs).sum(), learned, allow_unused=True)

    return forward if mode == 'forward' else forward_backward


def measured(case: Case, args: argparse.Namespace) -> list[dict[str, object]]:
    """Prints the table of one case and returns its rows; a candidate that cannot run is named with the reason."""
    import torch

    from zoo import measure

    device = torch.device(args.device)
    tasks = {}
    print(f'\n{case.name}, {case.mode}, {args.dtype} on {args.device}{", compiled" if args.compile else ""}')
    for name, task in case.tasks.items():
        try:
            task()
            tasks[name] = task
        except (RuntimeError, ValueError, NotImplementedError) as error:
            print(f'{name} cannot: {next(iter(str(error).splitlines()), type(error).__name__)}')
    if not tasks:
        raise ValueError(f'{case.name}: no candidate can run')
    samples = measure.interleave(tasks, device, args.rounds, args.min_seconds)
    baseline = next(iter(tasks))
    rows = []
    for name, seconds in samples.items():
        time, relative = measure.Spread.of(seconds), measure.ratio(seconds, samples[baseline])
        rows.append(
            {
                'candidate': name,
                'baseline': baseline,
                'case': case.name,
                'mode': case.mode,
                'dtype': args.dtype,
                'compiled': args.compile,
                'seconds': time.median,
                'seconds_low': time.low,
                'seconds_high': time.high,
                'per_second': case.batch / time.median,
                'ratio': relative.median,
                'ratio_low': relative.low,
                'ratio_high': relative.high,
                'peak_bytes': measure.peak_memory(tasks[name], device),
                'rounds': args.rounds,
            }
        )
    print_rows(rows)
    return rows


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """The table of one case; each spread is from the first to the third quartile."""
    columns = ('candidate', 'ms', 'quartiles', 'per second', f'time / {rows[0]["baseline"]}', 'quartiles', 'peak MiB')
    lines = []
    for row in rows:
        time = f'{1e3 * row["seconds_low"]:.3g} - {1e3 * row["seconds_high"]:.3g}'
        spread = f'{row["ratio_low"]:.2f} - {row["ratio_high"]:.2f}'
        memory = f'{row["peak_bytes"] / 2**20:.1f}'
        rate = f'{row["per_second"]:.4g}'
        lines.append(
            (row['candidate'], f'{1e3 * row["seconds"]:.3g}', time, rate, f'{row["ratio"]:.2f}', spread, memory)
        )
    _console.print_table(columns, lines)


def write_csv(rows: Sequence[dict[str, object]], origin: dict[str, object], path: Path) -> None:
    """Writes the rows, each with its origin, whole or not at all."""
    from checkpoints.files import replacing

    with replacing(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, [*rows[0], *origin], lineterminator='\n')
        writer.writeheader()
        for row in rows:
            writer.writerow({**{k: f'{v:.6g}' if isinstance(v, float) else v for k, v in row.items()}, **origin})


def machine() -> dict[str, object]:
    """What the numbers depend on beside the code."""
    import torch

    from zoo.measure import device_name

    found: dict[str, object] = {'cpu': device_name(torch.device('cpu')), 'threads': torch.get_num_threads()}
    found['gpu'] = device_name(torch.device('cuda')) if torch.cuda.is_available() else ''
    found['date'] = datetime.now(timezone.utc).date().isoformat()
    return {**found, **{name: version(name) for name in ('torch', 'timm', 'attnzoo')}}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return _console.run(build_parser(), lambda args: benchmark(args, arguments), arguments)


if __name__ == '__main__':
    raise SystemExit(main())

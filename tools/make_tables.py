"""Writes the generated tables: `zoo/costs.csv`, and in Markdown what stands between `<!-- table:NAME -->` markers.

The tables come from the registry, the catalogue, `checkpoints/results.csv`, docs/benchmarks and the docstrings of the
operators.
"""

import argparse
import csv
import functools
import importlib
import inspect
import io
import multiprocessing
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tools import _console

ROOT = Path(__file__).parents[1]
METHODS = {
    'cascade_mask_rcnn': 'Cascade Mask R-CNN',
    'mask_rcnn': 'Mask R-CNN',
    'retinanet': 'RetinaNet',
    'atss': 'ATSS',
    'dyhead': 'DyHead',
    'sparse_rcnn': 'Sparse R-CNN',
    'mask2former': 'Mask2Former',
    'upernet': 'UPerNet',
    'semantic_fpn': 'Semantic FPN',
}
"""What the name of a detector's or segmentor's config begins with."""
PAGES = ('README.md', 'checkpoints/README.md', 'ops/README.md', 'docs/**/*.md')
MARKED = re.compile(r'(<!-- table:(\w+) -->\n).*?(<!-- /table:\2 -->)', re.DOTALL)
OPENING = re.compile(r'<!-- table:(\w+) -->')


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='python tools/make_tables.py', description='Write the generated tables of the documents.'
    )
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 when a file is not current')
    return parser


def make_tables(args: argparse.Namespace) -> int:
    """Brings every file up to date, or says which are not."""
    from checkpoints.files import replacing

    stale = False
    for path, text in generated():
        if path.exists() and path.read_text(encoding='utf-8') == text:
            continue
        stale = True
        print(f'{path.relative_to(ROOT)} {"is not current" if args.check else "written"}')
        if not args.check:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding='utf-8')
    if stale and args.check:
        print('run tools/make_tables.py', file=sys.stderr)
        return _console.FAILED
    return 0


def generated() -> Iterator[tuple[Path, str]]:
    """Every file with generated parts and what it should hold; the counts first, the pages show them."""
    from zoo.profile import RECORD

    yield RECORD, costs()
    for page in sorted({path for pattern in PAGES for path in ROOT.glob(pattern)}):
        yield page, filled(page.read_text(encoding='utf-8'), str(page.relative_to(ROOT)))


def filled(text: str, where: str) -> str:
    """The text with current tables between its markers.

    Raises:
        ValueError: a marker names no table or is not closed.
    """
    for name in OPENING.findall(text):
        if name not in TABLES:
            raise ValueError(f'{where}: there is no table {name!r}; there are {", ".join(TABLES)}')
        if f'<!-- /table:{name} -->' not in text:
            raise ValueError(f'{where}: <!-- table:{name} --> is not closed by <!-- /table:{name} -->')
    return MARKED.sub(lambda match: f'{match[1]}{TABLES[match[2]]()}{match[3]}', text)


def costs() -> str:
    """Parameters and multiply-adds of every model at its default input size, counted anew."""
    import zoo

    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(('model', 'input_size', 'parameters', 'macs'))
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')) as workers:
        writer.writerows(workers.map(cost_row, zoo.list_models(), chunksize=4))
    return file.getvalue()


def cost_row(name: str) -> tuple[str, str, int, int]:
    """A model's line in the record."""
    import torch

    from zoo.profile import profile

    torch.set_num_threads(1)
    cost = profile(name)
    return name, 'x'.join(map(str, cost.input_size)), cost.parameters, cost.macs


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> str:
    """A Markdown table; the columns whose positions are in `right` are aligned to the right, None is empty."""
    rules = ['---:' if index in right else '---' for index in range(len(columns))]
    lines = [columns, rules, *([shown(cell) for cell in row] for row in rows)]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def shown(cell: object) -> str:
    """What a cell shows."""
    return '' if cell is None else str(cell).replace('|', r'\|')


def models_table() -> str:
    """Every model with its cost, its first weights and their quoted accuracy."""
    from tools.list import rows

    columns = ('model', 'params M', 'MACs G', 'input', 'weights', 'top-1 % (quoted)', 'licence')
    lines = []
    for row in rows():
        first = row.weights[0] if row.weights else None
        size = 'x'.join(map(str, row.input_size[1:]))
        weights = ', '.join(f'`{entry.tag}`' for entry in row.weights) or None
        quoted = (first.paper_top1, first.license) if first else (None, None)
        cost = _console.millions(row.parameters), _console.billions(row.macs)
        lines.append((f'`{row.model}`', *cost, size, weights, *quoted))
    return markdown(columns, lines, right=(1, 2, 5))


def families_table() -> str:
    """Every family with the range of its models, its operators and its first paper."""
    import checkpoints
    import zoo
    from ops.registry import OPS
    from zoo.profile import recorded

    columns = ('family', 'models', 'params M', 'MACs G', 'operators', 'weight files', 'paper')
    names, lines = {op.module_class: name for name, op in reversed(OPS.items())}, []
    users = families_by_class()
    for family in dict.fromkeys(map(zoo.family_of, zoo.list_models())):
        models = [name for name in zoo.list_models() if zoo.family_of(name) == family]
        costs = [recorded()[name] for name in models if name in recorded()]
        ranges = [span(column, unit) for column, unit in zip(zip(*costs), (1e6, 1e9))] or ['', '']
        operators = sorted(name for cls, name in names.items() if family in users.get(cls, ()))
        catalogue = checkpoints.catalogue(family) if family in checkpoints.families() else {}
        module = importlib.import_module(f'zoo.families.{family}')
        numbers = re.findall(r'arxiv\.org/abs/(\d+\.\d+)', module.__doc__ or '')
        paper = f'[{numbers[0]}](https://arxiv.org/abs/{numbers[0]})' if numbers else None
        shown_models = f'{len(models)}: `{models[0]}` ... `{models[-1]}`' if len(models) > 1 else f'`{models[0]}`'
        files = sum(len(tags) for tags in catalogue.values())
        operators_shown = ', '.join(f'`{name}`' for name in operators)
        lines.append((f'`{family}`', shown_models, *ranges, operators_shown, files, paper))
    return markdown(columns, lines, right=(2, 3, 5))


def span(numbers: Sequence[int], unit: float) -> str:
    """The smallest and the largest, in units."""
    low, high = (f'{number / unit:.1f}' for number in (min(numbers), max(numbers)))
    return low if low == high else f'{low} - {high}'


def checkpoints_table() -> str:
    """Every weight file of the catalogue."""
    import checkpoints

    columns = ('weights', 'where', 'classes', 'input', 'top-1 % (quoted)', 'licence', 'code', 'sha256')
    lines = []
    for family in checkpoints.families():
        for tags in checkpoints.catalogue(family).values():
            for entry in tags.values():
                size = 'x'.join(map(str, entry.input_size[1:]))
                code = entry.code.partition('@')[0]
                digest = entry.sha256 and f'`{entry.sha256[:16]}`'
                facts = entry.num_classes, size, entry.paper_top1, entry.license, code, digest
                lines.append((f'`{entry.name}`', where(entry), *facts))
    return markdown(columns, lines, right=(2, 4))


def where(entry: Any) -> str:
    """Where a weight file is, as a link."""
    if entry.file:
        return f'[in this project]({entry.file})'
    if entry.url:
        return f'[authors]({entry.url})'
    return f'[hub](https://huggingface.co/{entry.hf_hub_id.partition("@")[0]})'


def dense_table() -> str:
    """Every config of a detector or segmentor with what its paper quotes."""
    import checkpoints
    from checkpoints.dense import SCORES

    columns = ('config', 'backbone', 'method', 'box AP', 'mask AP', 'PQ', 'mIoU', 'multi-scale', 'weights')
    lines = []
    for path in sorted(file for task in ('detection', 'segmentation') for file in ROOT.glob(f'configs/{task}/*/*.py')):
        entry = checkpoints.published_for(path)
        backbone = re.search(r"\bname='([\w.]+)'", path.read_text(encoding='utf-8'))
        method = next(title for prefix, title in METHODS.items() if path.stem.startswith(f'{prefix}_'))
        linked = f'[`{path.stem}`](../{path.relative_to(ROOT).as_posix()})'
        scores = [entry and getattr(entry, score) for score in SCORES]
        weights = f'[authors]({entry.url})' if entry and entry.url else entry and entry.file and 'ours'
        lines.append((linked, backbone and f'`{backbone[1]}`', method, *scores, weights))
    return markdown(columns, lines, right=range(3, 8))


def results_table() -> str:
    """What was measured here: the columns of `checkpoints/results.csv` that fit a page."""
    columns = ('model', 'dataset', 'split', 'metric', 'value', 'resolution', 'weights', 'date', 'device')
    with (ROOT / 'checkpoints' / 'results.csv').open(newline='', encoding='utf-8') as file:
        lines = [[row[column] for column in columns] for row in csv.DictReader(file)]
    return markdown(columns, lines, right=(4, 5))


def ops_table() -> str:
    """Every operator of the registry, with what it costs and where it is used."""
    from ops.registry import OPS

    columns = ('name', 'class', 'layout', 'cost', 'parameters at dim 64', 'options', 'used by', 'backends', 'paper')
    families = families_by_class()
    lines = []
    for name, op in OPS.items():
        cls, layout, cost, backends, links = op_facts(op.cls)
        size = sum(parameter.numel() for parameter in op.build(64, 2, device='meta').parameters())
        options = ', '.join(f'`{option}={shown_option(value)}`' for option, value in op.options.items())
        users = ', '.join(f'`{family}`' for family in sorted(families.get(op.module_class, ())))
        shape = op.layout if layout is None else layout
        lines.append((f'`{name}`', cls, shape, cost, f'{size:,}', options, users, backends, links))
    return markdown(columns, lines, right=(4,))


def shown_option(value: object) -> str:
    """A default as it is written in code."""
    return getattr(value, '__name__', None) or repr(value)


def parts_table() -> str:
    """Every other public name of `ops`: functions, and modules that operators are made of."""
    import ops
    from ops.registry import OPS

    columns = ('name', 'layout', 'cost', 'backends', 'paper')
    named = {op.cls for op in OPS.values()}
    return markdown(columns, (op_facts(name) for name in ops.PLACES if name not in named))


@functools.cache
def families_by_class() -> dict[type, set[str]]:
    """Class of a module -> the families with a model that holds one."""
    import zoo
    from zoo.profile import on_meta

    found: dict[type, set[str]] = {}
    for name in zoo.list_models():
        for cls in {type(module) for module in on_meta(name).modules()}:
            found.setdefault(cls, set()).add(zoo.family_of(name))
    return found


def op_facts(name: str) -> tuple[str, str | None, str | None, str | None, str]:
    """Of a public name of `ops`: a link to it, and what its docstring and its file say."""
    import ops

    module = importlib.import_module(ops.PLACES[name])
    doc = inspect.getdoc(getattr(module, name)) or ''
    layout = re.match(r'\([^)]*\)[^(]* -> \([^)]*\)', doc)
    cost = re.search(r'\b(?:Work|Memory)\b[^.]*(?:\.\d[^.]*)*\.', doc)
    backends = ', '.join(f'`{backend.name}`' for backend in getattr(module, 'BACKENDS', ()))
    links = [f'[{number}](https://arxiv.org/abs/{number})' for number in papers(module)]
    file = Path(inspect.getfile(module)).parent if hasattr(module, '__path__') else Path(inspect.getfile(module))
    linked = f'[`{name}`]({file.relative_to(ROOT / "ops").as_posix()})'
    return linked, layout and layout[0], cost and ' '.join(cost[0].split()), backends or None, ', '.join(links)


def papers(module: Any) -> list[str]:
    """The arXiv numbers that the files of an operator name, in order of their first appearance by file name."""
    files = sorted(Path(module.__path__[0]).glob('*.py')) if hasattr(module, '__path__') else [Path(module.__file__)]
    found = (re.findall(r'arxiv\.org/abs/(\d+\.\d+)', file.read_text(encoding='utf-8')) for file in files)
    return sorted({number for numbers in found for number in numbers})


def measured_table(name: str) -> str:
    """One of `tools._measured`."""
    from tools import _measured

    return markdown(*_measured.TABLES[name]())


TABLES: dict[str, Callable[[], str]] = {
    'models': models_table,
    'families': families_table,
    'checkpoints': checkpoints_table,
    'dense': dense_table,
    'results': results_table,
    'ops': ops_table,
    'parts': parts_table,
    **{
        name: functools.partial(measured_table, name)
        for name in ('speed', 'missed', 'reached', 'sizes', 'peers', 'mixers', 'bfloat16', 'compiled')
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), make_tables, argv)


if __name__ == '__main__':
    raise SystemExit(main())

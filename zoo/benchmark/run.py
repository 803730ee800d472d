"""From the tables of `zoo.benchmark.suites` to rows: comparisons as cases, and what sums their rows up."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import inf
from statistics import geometric_mean

from zoo.benchmark import suites
from zoo.benchmark.case import Case
from zoo.benchmark.growth import exponent
from zoo.benchmark.models import model_work
from zoo.benchmark.operators import Map, operator_work
from zoo.benchmark.rows import Record, Row, Target
from zoo.benchmark.suites import Comparison
from zoo.benchmark.work import FORWARD, MODES, Setting, Work


def cases_of(
    suite: str,
    comparisons: Iterable[Comparison],
    setting: Setting,
    modes: Sequence[str] = MODES,
    more: Sequence[str] = (),
) -> Iterator[Case]:
    """One case per comparison and mode, with `more` candidates in each."""
    for comparison in comparisons:
        size, candidates = comparison.size, dict.fromkeys((*comparison.candidates, *more))
        for mode in modes:
            make: Callable[[str], Work]
            if isinstance(size, str):
                shape = Map.parse(size)
                what, sides = f'{shape}', (shape.height, shape.width)
                make = partial(operator_work, size=shape, batch=comparison.batch, setting=setting)
            else:
                what, sides = f'{size} pixels', (size, size)
                make = partial(model_work, side=size, batch=comparison.batch, mode=mode, setting=setting)
            yield Case(
                suite=suite,
                name=f'{what}, batch {comparison.batch}{comparison.title and ": "}{comparison.title}',
                mode=mode,
                setting=setting,
                batch=comparison.batch,
                size=sides,
                candidates={candidate: partial(make, candidate) for candidate in candidates},
                baselines=dict(comparison.baselines),
                memory_baseline=comparison.memory_baseline,
                targets=targets_of(comparison, mode),
            )


def targets_of(comparison: Comparison, mode: str) -> dict[str, list[Target]]:
    """The goals of a comparison in one mode, by candidate."""
    targets: dict[str, list[Target]] = defaultdict(list)
    for goal in comparison.goals:
        bound = goal.bounds[0 if mode == FORWARD else 1]
        if bound < inf:
            targets[goal.candidate].append(Target(goal.column, bound))
    return targets


def growth(records: Sequence[Record], suite: str, bound: float | None = None) -> list[Row]:
    """The exponent in pixels of every candidate that was measured over two sizes or more, all else being equal."""
    same = ('candidate', 'mode', 'device', 'dtype', 'compiled', 'batch')
    costs: dict[tuple[str, ...], dict[str, tuple[int, float]]] = defaultdict(dict)
    for record in records:
        if record['suite'] == suite and record['seconds'] and record['height']:
            _, _, beside_size = record['case'].partition(', ')  # the heads of a map, for one
            key = (*(record[name] for name in same), beside_size)
            pixels = int(record['height']) * int(record['width'])
            costs[key][f'{record["height"]}x{record["width"]}'] = pixels, float(record['seconds'])
    rows = []
    for (candidate, mode, device, dtype, compiled, batch, _), found in costs.items():
        sizes, seconds = zip(*found.values())
        if len(set(sizes)) > 1:
            names = list(found)
            row = Row(suite, f'exponent in pixels, {names[0]} to {names[-1]}, batch {batch}', candidate)
            row.mode, row.device, row.dtype, row.compiled = mode, device, dtype, compiled == 'True'
            row.value = exponent(sizes, seconds)
            row.judge([Target('value', bound)] if bound is not None else [])
            rows.append(row)
    return rows


def faster_than_authors(records: Sequence[Record], setting: Setting) -> list[Row]:
    """The geometric mean of the authors' time over ours, when all models of the suite were measured in both modes."""
    ratios = {(r['candidate'], r['mode']): r['ratio'] for r in records if r['suite'] == 'authors'}
    ours = [ratios.get((name, mode)) for name in suites.AUTHORS for mode in MODES]
    if not all(ours):
        return []
    row = Row('authors', "speed-up over the authors' code, geometric mean over models and modes", 'all')
    row.device, row.dtype, row.compiled = setting.device, setting.dtype, setting.compiled
    row.value = 1 / geometric_mean(float(ratio) for ratio in ours if ratio)
    row.judge([Target('value', suites.FASTER_THAN_AUTHORS, at_least=True)])
    return [row]

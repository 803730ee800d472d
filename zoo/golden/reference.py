"""Finds and reads references: which cases a folder holds, their inputs, and how near a tensor comes to their numbers.

Letters: B batch, C channels, H W height and width.
"""

import dataclasses
import functools
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.golden import rule

NOISE_FACTOR, ROUNDING, FEATURE_ROUNDING = 4, 1e-5, 2e-4


class Unmapped(Exception):
    """Nothing of ours answers to this reference; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One quantity of a reference against ours: it agrees when `error` is at most `tolerance`."""

    what: str
    error: float
    tolerance: float
    note: str = ''

    @property
    def ratio(self) -> float:
        """Error over tolerance; infinite when not a number."""
        if math.isnan(self.error):
            return math.inf
        return self.error / self.tolerance if self.tolerance else (math.inf if self.error else 0.0)

    @property
    def agrees(self) -> bool:
        """Whether ours is the authors' number."""
        return self.ratio <= 1


Result = tuple[list[Comparison], int]
"""Comparisons, and the number of our parameters."""

Jobs = dict[str, Callable[[], Result]]
"""What computes an operator, such as a backend -> the comparison."""


class Arrays:
    """The numbers of one reference, whole, sampled or as the seed of a random stream.

    Array A of many elements is stored as `A_shape`, `A_sample` (at positions that follow from the name), `A_mean` and
    `A_std`; an input as `A_seed` and `A_shape`.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.stored = {name: file[name] for name in file.files}

    def __contains__(self, name: str) -> bool:
        return name in self.stored or f'{name}_sample' in self.stored

    def __getitem__(self, name: str) -> np.ndarray:
        return self.stored[name]

    def starting(self, prefix: str) -> list[str]:
        """Names with this prefix, without it."""
        return [name.removeprefix(prefix) for name in self.stored if name.startswith(prefix)]

    @property
    def features(self) -> int:
        """Number of feature maps feat0, feat1, ..."""
        return sum(bool(re.fullmatch(r'feat\d+_sample', name)) for name in self.stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array that may be stored as a sample or as a seed."""
        return tuple(self[name].shape if name in self.stored else self[f'{name}_shape'].tolist())

    def input(self, name: str) -> Tensor:
        """An array of inputs, stored or drawn from its seed."""
        if name in self.stored:
            return torch.from_numpy(self[name])
        return torch.from_numpy(rule.normal(int(self[f'{name}_seed']), self.shape(name)))

    def compare(self, name: str, ours: Tensor, noise: float | None) -> Comparison:
        """Largest difference of the stored elements, of the mean and of the standard deviation.

        Args:
            name: array of the reference.
            ours: tensor of its whole shape.
            noise: largest difference between float32 and float64 in the authors' own code, None where not recorded.
        """
        value = ours.detach().cpu().contiguous()
        if tuple(value.shape) != self.shape(name):
            return Comparison(name, math.inf, 0.0, f'{name} has shape {tuple(value.shape)}, not {self.shape(name)}')
        flat = value.flatten().numpy().astype(np.float64)
        if name in self.stored:
            theirs = self[name].astype(np.float64).flatten()
            differences = [flat - theirs]
        else:
            theirs = self[f'{name}_sample'].astype(np.float64)
            number = re.fullmatch(r'feat(\d+)', name)
            positions = rule.stream(int(number[1]) if number else name).randint(0, flat.size, theirs.size)
            differences = [
                flat[positions] - theirs,
                flat.mean() - self[f'{name}_mean'],
                flat.std() - self[f'{name}_std'],
            ]
        error = max((float(np.abs(d).max()) for d in differences if d.size), default=0.0)
        largest = float(np.abs(theirs).max()) if theirs.size else 0.0
        tolerance = FEATURE_ROUNDING * largest if noise is None else NOISE_FACTOR * noise + ROUNDING * largest
        return Comparison(name, error, tolerance)


@dataclasses.dataclass(frozen=True)
class Reference:
    """One case. `kind` is network, dense, keys (a network without numbers) or operator.

    Args:
        name: path below the parent of the folder searched, without suffix.
        kind: what is compared.
        config: the json of the case.
        numbers: the npz of the case, None for `keys`.
    """

    name: str
    kind: str
    config: dict[str, Any]
    numbers: Path | None

    @functools.cached_property
    def arrays(self) -> Arrays:
        """The numbers, read once."""
        if self.numbers is None:
            raise ValueError(f'{self.name} holds keys alone, no numbers')
        return Arrays(self.numbers)

    @property
    def title(self) -> str:
        """The case's own name, the last part of `name`."""
        return self.name.rsplit('/', 1)[-1]

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the authors' constructor."""
        return self.config['cfg'] if 'cfg' in self.config else self.config.get('official', {}).get('kwargs', {})

    def kept(self, key: str) -> bool:
        """Whether an entry of the state dict keeps the value that its constructor gave it."""
        endings = ('num_batches_tracked', *self.config.get('kept_suffixes', ()))
        return key in self.config.get('kept_buffers', ()) or key.endswith(endings)


def find(folders: Iterable[str | Path]) -> list[Reference]:
    """Every reference below the folders, in order of their paths.

    Raises:
        ValueError: no such folder, nothing in it, a damaged file, or a json file that is no reference.
    """
    found: list[Reference] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ValueError(f'no such folder: {folder}')
        below = list(_below(folder.resolve()))
        if not below:
            raise ValueError(f'no reference (a json and an npz file) below {folder}')
        found += below
    return found


def _below(folder: Path) -> Iterator[Reference]:
    unclaimed = set(folder.rglob('*.npz'))
    references = []
    for path in sorted(folder.rglob('*.json')):
        for name, config, numbers in _cases(path):
            unclaimed.discard(numbers)
            case = (path.parent / name).relative_to(folder.parent).as_posix()
            kind = _kind(path, config, numbers)
            references.append(Reference(case, kind, config, numbers if numbers.is_file() else None))
    for numbers in unclaimed:
        case = numbers.with_suffix('').relative_to(folder.parent).as_posix()
        references.append(Reference(case, 'operator', {}, numbers))
    yield from sorted(references, key=lambda reference: reference.name)


def _cases(path: Path) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """Name, configuration and numbers of the cases that a json file describes."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f'damaged reference {path}: {error}') from None
    if not isinstance(content, dict) or not content.keys() & {'model', 'op', 'cases'}:
        raise ValueError(f'{path} is no reference: it names neither a model, an op nor cases')
    if 'cases' not in content:
        yield path.stem, content, path.with_suffix('.npz')
        return
    for name, config in content['cases'].items():
        numbers = path.parent / f'{name}.npz'
        if numbers.is_file():  # an index may also list cases that are kept elsewhere
            yield name, config, numbers


def _kind(path: Path, config: dict[str, Any], numbers: Path) -> str:
    if config.get('manifest_only'):
        return 'keys'
    try:
        with zipfile.ZipFile(numbers) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} needs its numbers in {numbers.name}: {error}') from None
    if 'model' not in config:
        return 'operator'
    return 'network' if 'logits.npy' in names else 'dense'

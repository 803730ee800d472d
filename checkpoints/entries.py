"""The catalogue: which weight files exist, where they are, how they were made and what the papers say of them.

One TOML file per family beside this module, one table `[model.tag]` per weight file; the first tag of a model is its
default and a table `[defaults]` fills what an entry leaves out. Numbers are quoted; measured ones are in `results.csv`,
those of detectors and segmentors in `dense.toml`.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from checkpoints.errors import CheckpointError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
DENSE = 'dense'
"""The one TOML file that is no family's, see `checkpoints.dense`."""
LICENSES = ('MIT', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'CC-BY-4.0', 'CC-BY-NC-4.0', 'CC-BY-NC-SA-4.0', 'none')
CROP_MODES = ('center', 'squash', 'border')
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'lanczos')


@dataclass(frozen=True)
class Checkpoint:
    """One weight file. It has at least one source: `file`, `url` or `hf_hub_id`.

    Args:
        model: name of the network, as timm knows it.
        tag: who trained it on what, e.g. `shi_in22k_ft_in1k`.
        license: SPDX name, or `none` where the authors give no licence.
        code: where the network was defined, `owner/repository@commit path`, or a path of this project.
        input_size: channels, height and width in pixels.
        num_classes: outputs of the classifier.
        crop_pct: side of the crop over side of the resized image, ratio.
        crop_mode: in timm's words: 'center' keeps the aspect of an image, 'squash' resizes it to a square.
        interpolation: how images are resized.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        url: where the authors host it.
        file: path inside this package of a file that ships with it.
        hf_hub_id: `organisation/name` or `organisation/name@revision`.
        sha256: 64 hex digits; None where nobody published it.
        bytes: size of the file; None where unknown.
        labels: class names in the order of the outputs; empty where a public list is meant.
        paper: arXiv identifier.
        paper_top1: percent on the test images, quoted.
        paper_params: millions, quoted.
        paper_flops: 1e9 multiply-adds at `input_size`, quoted.
        mirrors: further places that hold the same weights under other key names.
        note: what a user has to know.
    """

    model: str
    tag: str
    license: str
    code: str
    input_size: tuple[int, int, int]
    num_classes: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_mode: str = 'center'
    url: str | None = None
    file: str | None = None
    hf_hub_id: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    labels: tuple[str, ...] = ()
    paper: str | None = None
    paper_top1: float | None = None
    paper_params: float | None = None
    paper_flops: float | None = None
    mirrors: tuple[str, ...] = ()
    note: str | None = None

    @property
    def name(self) -> str:
        """`model.tag`, the name timm uses."""
        return f'{self.model}.{self.tag}'

    @property
    def local_file(self) -> Path | None:
        """Absolute path of `file`, whether or not it exists."""
        return None if self.file is None else FOLDER / self.file


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low < value <= high


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


def _list_of(check: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and length in (None, len(value)) and all(map(check, value))


def _inside_package(value: Any) -> bool:
    return _text(r'[\w-][\w./-]*')(value) and '..' not in PurePosixPath(value).parts


HUB_ID = r'[\w.-]+/[\w.-]+(@[\w.-]+)?'

CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'license': (lambda value: value in LICENSES, f'one of {", ".join(LICENSES)}'),
    'code': (
        _text(r'([\w.-]+/[\w.-]+@[0-9a-f]{40} )?[\w./-]+'),
        "'owner/repository@<40 hex digits> path' or a path of this project",
    ),
    'input_size': (_list_of(_count, 3), 'three positive integers [channels, height, width]'),
    'num_classes': (_count, 'a positive integer'),
    'crop_pct': (_number(0, 1), 'a ratio in (0, 1]'),
    'interpolation': (lambda value: value in INTERPOLATIONS, f'one of {", ".join(INTERPOLATIONS)}'),
    'mean': (_list_of(_number(-1, 1)), 'a list of numbers, one per channel'),
    'std': (_list_of(_number(0, 10)), 'a list of positive numbers, one per channel'),
    'crop_mode': (lambda value: value in CROP_MODES, f'one of {", ".join(CROP_MODES)}'),
    'url': (_text(r'https?://\S+'), 'an http(s) url'),
    'file': (_inside_package, 'a relative path inside the package checkpoints'),
    'hf_hub_id': (_text(HUB_ID), "'organisation/name' or 'organisation/name@revision'"),
    'sha256': (_text(r'[0-9a-f]{64}'), '64 lower-case hex digits'),
    'bytes': (_count, 'a positive integer'),
    'labels': (_list_of(_text(r'.+')), 'a list of class names'),
    'paper': (_text(r'\d{4}\.\d{4,5}'), 'an arXiv identifier such as 2204.07143'),
    'paper_top1': (_number(0, 100), 'a percentage'),
    'paper_params': (_number(0, 1e6), 'a number of millions'),
    'paper_flops': (_number(0, 1e6), 'a number of 1e9 multiply-adds'),
    'mirrors': (_list_of(_text(HUB_ID)), "a list of 'organisation/name'"),
    'note': (_text(r'.+'), 'a sentence'),
}
REQUIRED = tuple(f.name for f in fields(Checkpoint) if f.default is MISSING and f.name in CHECKS)


def _entry(where: str, model: str, tag: str, values: Mapping[str, Any]) -> Checkpoint:
    """Check one table against `CHECKS` and the rules between fields; `where` is the file's name, for errors."""
    where = f'{where}: [{model}.{tag}]'
    for field, value in values.items():
        if field not in CHECKS:
            raise CheckpointError(f'{where} {field}: unknown field; there are {", ".join(CHECKS)}')
        check, wanted = CHECKS[field]
        if not check(value):
            raise CheckpointError(f'{where} {field}: {value!r} is not {wanted}')
    for field in REQUIRED:
        if field not in values:
            raise CheckpointError(f'{where} {field}: missing')
    if not {'url', 'file', 'hf_hub_id'} & set(values):
        raise CheckpointError(f'{where} url: missing, and neither file nor hf_hub_id is given')
    for field in ('sha256', 'bytes'):
        if 'file' in values and field not in values:
            raise CheckpointError(f'{where} {field}: missing, a file that ships is checked against it')
    for field in ('mean', 'std'):
        if len(values[field]) != values['input_size'][0]:
            raise CheckpointError(f'{where} {field}: {values[field]} does not fit {values["input_size"][0]} channels')
    if values.get('labels') and len(values['labels']) != values['num_classes']:
        raise CheckpointError(f'{where} labels: {len(values["labels"])} names for {values["num_classes"]} classes')
    frozen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return Checkpoint(model=model, tag=tag, **frozen)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        CheckpointError: the file is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(f'{path.name}: {error}') from error


def read_catalogue(path: Path) -> dict[str, dict[str, Checkpoint]]:
    """Read one TOML file: model -> tag -> entry, in the order of the file.

    Raises:
        CheckpointError: the file is missing or no TOML, or an entry is wrong; names file, entry and field.
    """
    tables = read_toml(path)
    defaults = tables.pop('defaults', {})
    for model, tags in tables.items():
        if not (isinstance(tags, dict) and tags and all(isinstance(entry, dict) for entry in tags.values())):
            raise CheckpointError(f'{path.name}: [{model}]: holds tables [{model}.<tag>] and nothing else')
    return {
        model: {tag: _entry(path.name, model, tag, {**defaults, **entry}) for tag, entry in tags.items()}
        for model, tags in tables.items()
    }


def families() -> tuple[str, ...]:
    """Names of the families that have a catalogue, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob('*.toml') if path.stem != DENSE))


@cache
def catalogue(family: str) -> dict[str, dict[str, Checkpoint]]:
    """The entries of a family: model -> tag -> entry, the first tag is the default. Read once; do not modify.

    Raises:
        CheckpointError: no such family, or its file is wrong.
    """
    if family not in families():
        raise CheckpointError(f'no catalogue for the family {family!r}; there are {", ".join(families())}')
    return read_catalogue(FOLDER / f'{family}.toml')


def entry_named(name: str) -> Checkpoint | None:
    """The entry `model.tag` of any family, None where there is none."""
    model, _, tag = name.partition('.')
    return next((found for family in families() if (found := catalogue(family).get(model, {}).get(tag))), None)

"""The authors' own code as a candidate, from a checkout, with stand-ins for packages that it needs and nobody has."""

import importlib
import importlib.abc
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from unittest.mock import patch

import torch
import torchvision  # noqa: F401  (registers its operators)
from torch import Tensor

AUTHORS = 'authors:'
OURS = ('ops', 'zoo', 'checkpoints', 'configs', 'tools')
REGISTRIES = ('timm.models', 'timm.models.registry', 'timm.models._registry')

T = TypeVar('T')


def import_authors(name: str) -> Any:
    """What `authors:FOLDER:MODULE:NAME` names: an object of the authors' code in a checkout at FOLDER.

    Their packages may be called as ours, `ops` say, or as those of other authors, `models`: during the import only
    theirs are seen, and afterwards none of them. None of their models takes the place of one of timm.

    Raises:
        ValueError: the name has another form, or there is no such folder, module or object.
    """
    parts = name.removeprefix(AUTHORS).rsplit(':', 2)
    if len(parts) != 3:
        raise ValueError(f"{AUTHORS}FOLDER:MODULE:NAME names a class or function of the authors' code, got {name!r}")
    folder = Path(parts[0]).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f'{name}: there is no folder {folder}')
    with only_from(folder), quiet(), stand_ins(), nothing_registered():
        try:
            return getattr(importlib.import_module(parts[1]), parts[2])
        except (ImportError, AttributeError) as error:
            raise ValueError(f'{name}: {error}') from error


@contextmanager
def quiet() -> Iterator[None]:
    """Old code has much that is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@contextmanager
def only_from(folder: Path) -> Iterator[None]:
    """Imports search `folder` first, and leave nothing of it behind; the packages of this project are out of sight."""
    theirs = {place.stem for place in folder.iterdir()}
    hidden = {name: module for name, module in sys.modules.items() if name.partition('.')[0] in OURS}
    for name in hidden:
        del sys.modules[name]
    before = set(sys.modules)
    finder = NamespaceFinder(folder)
    sys.meta_path.insert(0, finder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.partition('.')[0] in theirs:
                del sys.modules[name]
        sys.modules.update(hidden)


class NamespaceFinder(importlib.abc.MetaPathFinder):
    """Finds packages without an `__init__.py`, which elsewhere on the path would stand behind ours of the same name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """The specification of such a package at the top of the folder."""
        place = self.folder / name
        if name not in OURS or not place.is_dir() or (place / '__init__.py').exists():
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(place)]
        return spec


@contextmanager
def nothing_registered() -> Iterator[None]:
    """No model is registered in timm: theirs would replace timm's of the same name, or be refused for what they say."""
    with ExitStack() as stack:
        for registry in REGISTRIES:
            stack.enter_context(patch.object(importlib.import_module(registry), 'register_model', same))
        yield


@contextmanager
def stand_ins() -> Iterator[None]:
    """Packages that old code imports and that are not installed, as far as it needs them without a GPU."""
    missing = [modules for package, modules in STAND_INS.items() if find_spec(package) is None]
    added = {name: made(name, has) for modules in missing for name, has in modules.items()}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def made(name: str, attributes: Mapping[str, Any]) -> ModuleType:
    """A module that holds what is given."""
    module = ModuleType(name)
    module.__dict__.update(attributes)
    return module


def same(x: T) -> T:
    """Its argument."""
    return x


def deform_conv2d_forward(x: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, *sizes: int) -> Tensor:
    """The operator of LITv2's extension DCN, computed by torchvision's."""
    return torch.ops.torchvision.deform_conv2d(x, weight, offset, *unmasked(x, bias, sizes))


def deform_conv2d_backward(
    x: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, gradient: Tensor, *sizes: int
) -> list[Tensor]:
    """The gradients of input, offset, weight and bias."""
    backward = torch.ops.torchvision._deform_conv2d_backward
    of_x, of_weight, of_offset, _, of_bias = backward(gradient, x, weight, offset, *unmasked(x, bias, sizes))
    return [of_x, of_offset, of_weight, of_bias]


def unmasked(x: Tensor, bias: Tensor, sizes: tuple[int, ...]) -> list[Any]:
    """The arguments after the offset: of `sizes` those between the kernel's and the step, and no mask."""
    return [x.new_zeros(len(x), 1), bias, *sizes[2:-1], False]


STAND_INS: dict[str, dict[str, dict[str, Any]]] = {
    'fairscale': {
        'fairscale': {},
        'fairscale.nn': {},
        'fairscale.nn.checkpoint': {'checkpoint_wrapper': same},
    },
    'apex': {'apex': {'amp': made('amp', {'float_function': same})}},
    'DCN': {'DCN': {f.__name__: f for f in (deform_conv2d_forward, deform_conv2d_backward)}},
}
"""By the package that is missing: its modules, and what they hold."""

"""State dicts: read from whatever an author saved, without running code from the file, and written as safetensors.

`torch.save` files are read with `weights_only`. Of the objects that authors store beside the weights (arguments,
configurations, numpy scalars, paths) the usual ones are replaced by empty stand-ins, so that nothing of their packages
is imported; any other is an error.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoints import tensorflow
from checkpoints.errors import CheckpointError
from checkpoints.files import replacing

EMA_WRAPPERS = ('state_dict_ema', 'model_ema', 'ema', 'params_ema')
WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'module', 'net', 'params')
PREFIXES = ('module.', '_orig_mod.')  # of DistributedDataParallel and torch.compile


class _Forgotten:
    """Stands for an object that is not read: takes any arguments and any state and keeps nothing."""

    def __new__(cls, *_: object) -> '_Forgotten':
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _ForgottenDict:
    """Stands for a subclass of dict; torch's unpickler fills only plain dicts, so it is one."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


STAND_INS = {
    _Forgotten: (
        'argparse.Namespace',
        *(f'builtins.{name}' for name in ('bool', 'bytes', 'dict', 'float', 'int', 'list', 'str', 'tuple')),
        'builtins.getattr',  # how a pickle refers to a method
        'datetime.datetime',
        'mmengine.logging.history_buffer.HistoryBuffer',
        'numpy.dtype',
        'numpy.ndarray',
        *(f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('scalar', '_reconstruct')),
        *(f'pathlib.{module}{kind}Path' for module in ('', '_local.') for kind in ('Posix', 'Windows')),
        *(f'pathlib.{module}Pure{kind}Path' for module in ('', '_local.') for kind in ('Posix', 'Windows')),
        'torch.torch_version.TorchVersion',
        'types.SimpleNamespace',
    ),
    _ForgottenDict: (
        'collections.defaultdict',
        'easydict.EasyDict',
        'mmengine.config.config.ConfigDict',
        'yacs.config.CfgNode',
    ),
}


def _torch_load(path: Path, head: bytes) -> Any:
    names: list[Any] = [(stand_in, name) for stand_in, names in STAND_INS.items() for name in names]
    try:
        with torch.serialization.safe_globals(names):
            return torch.load(path, map_location='cpu', weights_only=True, mmap=head.startswith(b'PK'))
    except Exception as error:  # torch raises a dozen types for damaged files
        if refused := re.search(r'GLOBAL ([\w.]+)', str(error)):
            raise CheckpointError(
                f'{path} refers to the Python object {refused[1]}, and reading that could run code from the file. '
                'If you trust its origin, load it where that object is known and save the weights alone: '
                "torch.save({'state_dict': weights}, ...)"
            ) from error
        detail = re.search(r'WeightsUnpickler error: (.+)', str(error)) or re.match(r'\s*(.*?)(\. |\n|$)', str(error))
        reason = f'{type(error).__name__}: {detail[1]}' if detail else type(error).__name__
        raise CheckpointError(f'{path} is truncated, damaged or no checkpoint of torch.save ({reason})') from error


def _load(path: Path) -> Any:
    """Whatever object the file holds, after a look at its first bytes."""
    try:
        with path.open('rb') as file:
            head = file.read(64)
    except IsADirectoryError as error:
        raise CheckpointError(f'{path} is a folder, not a checkpoint file') from error
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error.strerror}') from error
    if not head:
        raise CheckpointError(f'{path} is empty')
    if head.lstrip().startswith(b'<'):
        raise CheckpointError(f'{path} is a web page, not a checkpoint: the download went wrong')
    if head.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a git-lfs pointer, not the weights: run git lfs pull')
    if path.suffix == '.npz':
        return tensorflow.read_archive(path)
    if path.suffix == '.index':
        return tensorflow.read_bundle(path)
    if path.suffix != '.safetensors':
        return _torch_load(path, head)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{path} is truncated, damaged or no safetensors file ({error})') from error


def _describe(content: object) -> str:
    """What a file holds instead of a state dict, for errors."""
    if not isinstance(content, Mapping):
        return f'a {type(content).__name__}'
    entries = [f'{key} ({type(value).__name__})' for key, value in content.items()]
    return f'the entries {", ".join(entries[:8])}{", ..." if len(entries) > 8 else ""}' if entries else 'no entries'


def _unwrap(content: object, use_ema: bool, depth: int = 4) -> tuple[Mapping[object, object], bool] | None:
    """The innermost mapping with tensors, below at most `depth` wrappers, and whether it was wrapped; None without."""
    if not isinstance(content, Mapping):
        return None
    for key in (EMA_WRAPPERS if use_ema else ()) + WRAPPERS if depth else ():
        if found := _unwrap(content.get(key), use_ema, depth - 1):
            return found[0], True
    return (content, False) if any(isinstance(value, Tensor) for value in content.values()) else None


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove, again and again, a prefix that every key has."""
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


def read_state_dict(path: str | Path, use_ema: bool = True) -> dict[str, Tensor]:
    """Read a checkpoint into name -> tensor on the CPU, without running any code from it.

    A `.safetensors` file is one, `.index` and `.npz` hold variables of TensorFlow; any other is taken for the product
    of `torch.save`, memory-mapped where its format allows it. Wrappers such as `{'model': ...}` are opened, prefixes
    that every key has (`module.`, `_orig_mod.`) removed. Entries beside the weights that are no tensors (epoch,
    optimizer, arguments) are left out.

    Args:
        path: the file.
        use_ema: prefer the averaged weights where the file has them.

    Raises:
        CheckpointError: no file, damaged, needs code to be run, or holds no weights.
    """
    path = Path(path)
    content = _load(path)
    state_dict, wrapped = _unwrap(content, use_ema) or ({}, False)
    tensors = {
        key: value.detach() for key, value in state_dict.items() if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(f'{path} holds no weights but {_describe(content)}')
    if wrapped and len(tensors) < len(state_dict):
        key, value = next((key, value) for key, value in state_dict.items() if key not in tensors)
        raise CheckpointError(f'{path}: {key!r} among the weights is no tensor but {type(value).__name__}')
    return _strip_prefixes(tensorflow.choose_averages(tensors, use_ema))


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order: the library's own varies from run to run, and so the hash."""
    with path.open('r+b') as file:
        length = int.from_bytes(file.read(8), 'little')
        header = json.loads(file.read(length))
        header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode().ljust(length))


def save_safetensors(
    state_dict: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write name -> tensor as a `.safetensors` file: complete, or not at all. Memory: one copy of the weights.

    The same tensors and metadata give the same bytes.

    Args:
        state_dict: tensors on any device; shared and strided ones are written out in full.
        path: the file, replaced when it exists.
        metadata: texts for the header; `format = pt` is added.

    Raises:
        CheckpointError: nothing to write, an entry is no tensor, or the disk refuses.
    """
    if not state_dict:
        raise CheckpointError(f'{path} was not written: the state dict is empty')
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f'{path} was not written: {key!r} is no tensor but {type(value).__name__}')
    tensors = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in state_dict.items()
    }
    with replacing(Path(path)) as temporary:
        # safetensors writes a private file whatever the umask says
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(tensors, temporary, {'format': 'pt', **(metadata or {})})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        _sort_metadata(temporary)
        temporary.chmod(mode)

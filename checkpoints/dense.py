"""What the papers quote for the detectors and segmentors of `configs/`: the tables of `dense.toml` beside this module.

One table per folder of configs: `source`, the page with its numbers, and for each config by its name what stands there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from checkpoints import entries
from checkpoints.errors import CheckpointError

SCORES = ('box_ap', 'mask_ap', 'pq', 'miou', 'miou_ms')
CHECKS = {
    'source': entries.CHECKS['code'],
    **{field: entries.CHECKS[field] for field in ('url', 'file', 'sha256', 'note')},
    **dict.fromkeys(SCORES, entries.CHECKS['paper_top1']),
}


@dataclass(frozen=True)
class Published:
    """What the authors of a detector or segmentor quote, percent.

    Args:
        config: folder and name of its config below `configs/`, `detection/nat/mask_rcnn_nat_tiny_3x`.
        source: the page with the numbers, `owner/repository@commit path`.
        box_ap: of the boxes, on COCO val2017.
        mask_ap: of the masks, there.
        pq: panoptic quality, there.
        miou: on the validation images of ADE20K; of a panoptic model on COCO's.
        miou_ms: at several scales and flipped.
        url: weights that the config takes, where the authors host them.
        file: weights of ours that ship with this package, relative to it; no score is quoted for them.
        sha256: of `file`.
        note: what a reader has to know.
    """

    config: str
    source: str
    box_ap: float | None = None
    mask_ap: float | None = None
    pq: float | None = None
    miou: float | None = None
    miou_ms: float | None = None
    url: str | None = None
    file: str | None = None
    sha256: str | None = None
    note: str | None = None


def _published(where: str, config: str, values: Mapping[str, Any]) -> Published:
    """Check one entry; `where` is the file's name, for errors."""
    where = f'{where}: {config}'
    for field, value in values.items():
        if field not in CHECKS:
            raise CheckpointError(f'{where} {field}: unknown field; there are {", ".join(CHECKS)}')
        check, wanted = CHECKS[field]
        if not check(value):
            raise CheckpointError(f'{where} {field}: {value!r} is not {wanted}')
    if 'source' not in values:
        raise CheckpointError(f'{where} source: missing, and its folder has none')
    if not {*SCORES, 'file'} & set(values):
        raise CheckpointError(f'{where}: has none of {", ".join(SCORES)}, file')
    if 'file' in values and 'sha256' not in values:
        raise CheckpointError(f'{where} sha256: missing, a file that ships is checked against it')
    return Published(config, **values)


def read_published(path: Path) -> dict[str, Published]:
    """Read a file of quoted scores: config -> entry, in the order of the file.

    Raises:
        CheckpointError: the file is missing or no TOML, or an entry is wrong; names file, config and field.
    """
    found = {}
    for folder, table in entries.read_toml(path).items():
        shared = {'source': table.pop('source')} if 'source' in table else {}
        for name, values in table.items():
            if not isinstance(values, dict):
                raise CheckpointError(f'{path.name}: [{folder}] {name}: is no table of scores')
            config = f'{folder}/{name}'
            found[config] = _published(path.name, config, shared | values)
    return found


@cache
def published() -> dict[str, Published]:
    """Every entry by its config. Read once; do not modify."""
    return read_published(entries.FOLDER / f'{entries.DENSE}.toml')


def published_for(path: str | Path) -> Published | None:
    """The entry of a config file of this project, None where there is none."""
    return published().get('/'.join(Path(path).absolute().with_suffix('').parts[-3:]))

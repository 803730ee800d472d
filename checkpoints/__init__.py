"""Pretrained weights: the catalogue of the families, and everything between a source of weights and a state dict.

`locate` turns a source (file, url, hub id, catalogue entry) into a local file, `read_state_dict` that file into
tensors, `remap_keys` the authors' names into ours, and `coverage` says what fits.
"""

from checkpoints.dense import Published, published, published_for
from checkpoints.entries import Checkpoint, catalogue, families
from checkpoints.errors import CheckpointError
from checkpoints.files import sha256_of
from checkpoints.keys import Coverage, Misshapen, Rules, coverage, remap_keys, table_for
from checkpoints.sources import locate, verify
from checkpoints.state import read_state_dict, save_safetensors

__all__ = [
    'Checkpoint',
    'CheckpointError',
    'Coverage',
    'Misshapen',
    'Published',
    'Rules',
    'catalogue',
    'coverage',
    'families',
    'locate',
    'published',
    'published_for',
    'read_state_dict',
    'remap_keys',
    'save_safetensors',
    'sha256_of',
    'table_for',
    'verify',
]

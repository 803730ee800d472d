"""Every entry of every catalogue, and what a wrong one is told."""

import csv
import importlib
import re
import sys
from dataclasses import fields, replace
from subprocess import check_output

import pytest

import checkpoints
from checkpoints import Checkpoint, CheckpointError
from checkpoints.entries import CHECKS, FOLDER, REQUIRED, read_catalogue
from checkpoints.files import mismatch

ENTRIES = [
    entry
    for family in checkpoints.families()
    for tags in checkpoints.catalogue(family).values()
    for entry in tags.values()
]
GOOD = """
[defaults]
license = "MIT"
code = "SHI-Labs/Neighborhood-Attention-Transformer@d334f5bb0bd73cad05e5aeaf7c14cce3876a9650 classification/nat.py"
input_size = [3, 224, 224]
crop_pct = 0.875
interpolation = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
num_classes = 2

[net_tiny.first]
url = "https://example.org/a.pth"
crop_pct = 1.0

[net_tiny.second]
file = "weights/b.safetensors"
sha256 = "{sha256}"
bytes = 4
labels = ["cat", "dog"]
""".replace('{sha256}', 'ab' * 32)


def test_the_families():
    assert {'nat', 'dinat_s', 'nat_isotropic'} <= set(checkpoints.families())
    assert len(ENTRIES) >= 25
    with pytest.raises(CheckpointError, match="'bat'; there are .*nat"):
        checkpoints.catalogue('bat')


def test_names_and_urls_are_unique():
    for key in (lambda entry: entry.name, lambda entry: entry.url or entry.name):
        keys = [key(entry) for entry in ENTRIES]
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize('entry', ENTRIES, ids=lambda entry: entry.name)
def test_entry(entry: Checkpoint):
    assert entry.name == f'{entry.model}.{entry.tag}'
    assert re.fullmatch(r'[a-z0-9_]+\.[a-z0-9_]+', entry.name)
    assert entry.labels == () or len(entry.labels) == entry.num_classes
    if entry.file:
        assert mismatch(entry.local_file, entry.sha256, entry.bytes) is None
        assert checkpoints.read_state_dict(entry.local_file)
    if entry.url and entry.tag.startswith('shi_'):
        # the file's name says the model, the data and the resolution
        stem = entry.url.rsplit('/', 1)[1].removesuffix('.pth')
        assert stem.startswith(re.sub('_(384|21k|11x11)', '', entry.model))
        assert ('384' in stem) == (entry.input_size == (3, 384, 384)) == (entry.crop_pct == 1.0)
        assert stem.endswith('11x11') or '11x11interp' in stem or '11x11' not in entry.model
        only_22k = '22k' in stem and '1k' not in stem.replace('22k', '')
        assert only_22k == (entry.num_classes == 21841) == (entry.tag == 'shi_in22k')
        assert (entry.paper_top1 is None) == (entry.paper_params is None) == (entry.paper_flops is None) == only_22k


def test_every_field_is_checked_and_explained():
    names = [field.name for field in fields(Checkpoint)]
    assert names == ['model', 'tag', *[name for name in names if name in CHECKS]]
    assert set(CHECKS) < set(names)
    assert all(re.search(rf'^ +{name}: ', Checkpoint.__doc__, re.MULTILINE) for name in names)


def test_results_have_their_columns():
    with open(FOLDER / 'results.csv', newline='') as file:
        header = next(csv.reader(file))
    assert ','.join(header) == 'model,dataset,split,metric,value,resolution,weights,config,seed,date,commit,device'


def read(tmp_path, text: str):
    path = tmp_path / 'net.toml'
    path.write_text(text)
    return read_catalogue(path)


def test_defaults_are_filled_in(tmp_path):
    first, second = read(tmp_path, GOOD)['net_tiny'].values()
    assert (first.name, second.name) == ('net_tiny.first', 'net_tiny.second')
    assert (first.crop_pct, second.crop_pct) == (1.0, 0.875)
    assert second.labels == ('cat', 'dog')
    assert second.local_file == FOLDER / 'weights' / 'b.safetensors'
    assert hash(second) == hash(replace(second))


WRONG = {
    'license': ['"GPL"', '3'],
    'code': ['"https://github.com/SHI-Labs/NAT"', '"SHI-Labs/NAT@d334f5b nat.py"'],
    'input_size': ['[3, 224]', '[3, 224, -1]', '[3, 224, 224.0]', '224', '[1, 224, 224]'],
    'num_classes': ['0', 'true', '"2"', '3'],
    'crop_pct': ['0', '87.5', 'true'],
    'crop_mode': ['"middle"'],
    'interpolation': ['"cubic"'],
    'mean': ['[0.5, 0.5]', '0.5'],
    'std': ['[0.2, 0.2, 0.0]'],
    'url': ['"example.org/a.pth"', '"https://example.org/a b.pth"'],
    'file': ['"/etc/passwd"', '"../a.pth"', '"weights/../../a.pth"'],
    'hf_hub_id': ['"nat_mini"'],
    'sha256': ['"abc"', f'"{"AB" * 32}"'],
    'bytes': ['0', '1.5'],
    'labels': ['["cat"]', '["cat", ""]', '"cat"'],
    'paper': ['"https://arxiv.org/abs/2204.07143"'],
    'paper_top1': ['101', '"81.8"', 'true'],
    'paper_params': ['-1'],
    'paper_flops': ['"2.7G"'],
    'mirrors': ['"shi-labs/nat"', '["nat"]'],
    'note': ['""'],
    'sha265': ['"ab"'],
}


def test_every_field_has_a_wrong_value():
    assert set(WRONG) >= set(CHECKS)


@pytest.mark.parametrize(('field', 'value'), [(field, value) for field, values in WRONG.items() for value in values])
def test_wrong_value_names_file_entry_and_field(tmp_path, field, value):
    before, table, last = GOOD.partition('[net_tiny.second]')
    last = ''.join(line for line in last.splitlines(keepends=True) if not line.startswith(f'{field} ='))
    blamed = {('num_classes', '3'): 'labels', ('input_size', '[1, 224, 224]'): 'mean'}.get((field, value), field)
    with pytest.raises(CheckpointError, match=rf'net\.toml: \[net_tiny\.second\] {blamed}: '):
        read(tmp_path, f'{before}{table}{last}{field} = {value}\n')


@pytest.mark.parametrize('field', [*REQUIRED, 'url', 'sha256', 'bytes'])
def test_missing_field_is_named(tmp_path, field):
    lines = [line for line in GOOD.splitlines() if not line.startswith(f'{field} =')]
    with pytest.raises(CheckpointError, match=rf'net\.toml: \[net_tiny\.\w+\] {field}: missing'):
        read(tmp_path, '\n'.join(lines))


@pytest.mark.parametrize(
    'text', ['[net', '[net_tiny]\nurl = "https://example.org/a.pth"', 'net_tiny = 3', '[net_tiny]']
)
def test_no_catalogue(tmp_path, text):
    with pytest.raises(CheckpointError, match=r'net\.toml: '):
        read(tmp_path, text)


def test_import_is_light():
    code = 'import torch, sys; before = set(sys.modules); import checkpoints; print(*set(sys.modules) - before)'
    loaded = check_output([sys.executable, '-c', code], text=True).split()
    assert 'checkpoints' in loaded
    heavy = {'huggingface_hub', 'timm', 'torchvision', 'requests', 'httpx', 'zoo', 'ops', 'torch.hub', 'tqdm', 'numpy'}
    assert not heavy & set(loaded)


def test_public_names_exist():
    module = importlib.import_module('checkpoints')
    assert all(getattr(module, name).__doc__ for name in module.__all__ if name != 'Rules')

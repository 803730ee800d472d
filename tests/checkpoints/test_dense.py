"""The quoted scores of detectors and segmentors: every config has them or stands below, and a wrong entry is told."""

from pathlib import Path

import pytest

import checkpoints
from checkpoints import CheckpointError
from checkpoints.dense import SCORES, read_published

CONFIGS = Path(__file__).parents[2] / 'configs'
UNPUBLISHED = (
    # not in the papers of these gates and backbones
    'detection/gated_resnet/mask_rcnn_cbam_resnet50_1x',
    'detection/gated_resnet/mask_rcnn_ela_resnet50_1x',
    'detection/gated_resnet/retinanet_cbam_resnet50_1x',
    'detection/gated_resnet/retinanet_ela_resnet50_1x',
    'detection/nat/dyhead_nat_mini_1x',
    'detection/nat/retinanet_nat_mini_1x',
    'segmentation/maxvit/semantic_fpn_maxvit_stl_80k',
    'segmentation/maxvit/upernet_maxvit_tiny_160k',
    # on no page of the authors' repository
    'detection/maxvit/cascade_mask_rcnn_maxvit_base_3x',
    'detection/maxvit/cascade_mask_rcnn_maxvit_small_3x',
    'detection/maxvit/cascade_mask_rcnn_maxvit_tiny_3x',
    'segmentation/timm/semantic_fpn_resnet50_40k',
)
OWN_RUNS = ('coco16', 'camvid')
"""How the names of small runs of this project end."""
GOOD = """
["detection/net"]
source = "owner/repository@d334f5bb0bd73cad05e5aeaf7c14cce3876a9650 README.md"
mask_rcnn_net_1x = { box_ap = 40.0, mask_ap = 36.5, url = "https://example.org/a.pth" }
retinanet_net_1x = { box_ap = 38.0, note = "without masks" }
"""


def test_every_config_is_quoted_or_listed():
    paths = (path for task in ('detection', 'segmentation') for path in (CONFIGS / task).glob('*/*.py'))
    configs = {'/'.join(path.with_suffix('').parts[-3:]) for path in paths}
    own = {config for config in configs if config.endswith(OWN_RUNS)}
    assert configs - own == (checkpoints.published().keys() - own) | set(UNPUBLISHED)
    assert not checkpoints.published().keys() & set(UNPUBLISHED)


def test_scores_are_those_of_the_task():
    for config, entry in checkpoints.published().items():
        if entry.file:
            continue
        given = {score for score in SCORES if getattr(entry, score) is not None}
        assert given & ({'box_ap'} if config.startswith('detection/') else {'miou', 'miou_ms', 'pq', 'mask_ap'}), config
        assert entry.mask_ap is None or entry.box_ap is None or entry.mask_ap < entry.box_ap
        assert entry.miou_ms is None or entry.miou is None or entry.miou < entry.miou_ms
        assert ('mask_ap' in given) == ('mask_rcnn' in config or config.endswith('100e')) or 'focalnet' in config, (
            config
        )


def test_weights_are_named_once():
    urls = [entry.url for entry in checkpoints.published().values() if entry.url]
    assert len(urls) == len(set(urls)) > 100


def test_an_entry_is_found_by_its_file(tmp_path):
    path = CONFIGS / 'detection' / 'nat' / 'mask_rcnn_nat_tiny_3x.py'
    assert checkpoints.published_for(path).box_ap == 47.7
    assert checkpoints.published_for(tmp_path / path.name) is None


def test_source_is_shared(tmp_path):
    (tmp_path / 'dense.toml').write_text(GOOD)
    found = read_published(tmp_path / 'dense.toml')
    assert [entry.source.partition('@')[0] for entry in found.values()] == ['owner/repository'] * 2
    assert found['detection/net/retinanet_net_1x'].note == 'without masks'


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('mask_rcnn_net_1x = { box = 40.0 }', r'detection/net/mask_rcnn_net_1x box: unknown field; there are source'),
        ('mask_rcnn_net_1x = { box_ap = 400.0 }', r'mask_rcnn_net_1x box_ap: 400\.0 is not a percentage'),
        ('mask_rcnn_net_1x = { url = "https://example.org/a.pth" }', 'has none of box_ap, mask_ap'),
        ('mask_rcnn_net_1x = { file = "weights/a.safetensors" }', 'mask_rcnn_net_1x sha256: missing'),
        ('mask_rcnn_net_1x = 40.0', r'dense\.toml: \[detection/net\] mask_rcnn_net_1x: is no table'),
        ('mask_rcnn_net_1x = { box_ap = 40.0', r'dense\.toml: '),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, line, message):
    lines = GOOD.splitlines()
    lines[3] = line
    (tmp_path / 'dense.toml').write_text('\n'.join(lines))
    with pytest.raises(CheckpointError, match=message):
        read_published(tmp_path / 'dense.toml')
    (tmp_path / 'dense.toml').write_text(GOOD.replace('source', '# source'))
    with pytest.raises(CheckpointError, match='source: missing'):
        read_published(tmp_path / 'dense.toml')

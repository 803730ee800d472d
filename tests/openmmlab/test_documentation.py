"""The config of the document: read by mmengine as it stands, built, and run on an image of odd size."""

import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS

from tests.documentation import example
from zoo.training.runner import read_config


def test_the_config_with_our_backbone(tmp_path):
    register_all_modules(init_default_scope=False)
    path = tmp_path / 'config.py'
    path.write_text(example('dense.md', 'Our backbones in your own config'))
    config = Config.fromfile(path).model
    config.backbone.depths = (1, 1, 1, 1)
    model = MODELS.build(dict(config, _scope_='mmdet')).eval()
    with torch.no_grad():
        levels = model.extract_feat(torch.randn(1, 3, 97, 131))
    assert [tuple(level.shape[1:]) for level in levels[:4]] == [
        (256, 25, 33),
        (256, 13, 17),
        (256, 7, 9),
        (256, 4, 5),
    ]


def test_bases_of_both_libraries_are_found(tmp_path):
    for base in ('mmdet::_base_/models/retinanet_r50_fpn.py', 'mmseg::_base_/models/upernet_r50.py'):
        path = tmp_path / 'config.py'
        path.write_text(f'_base_ = {base!r}')
        assert read_config(str(path)).model.backbone.depth == 50

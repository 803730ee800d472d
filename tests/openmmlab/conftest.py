"""Rectangles and ellipses with boxes, masks and segments, and small networks for them: a run takes seconds."""

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

pytest.importorskip('mmdet', reason='detection and segmentation need the extra [dense]')

from pycocotools import mask as rle

import zoo.openmmlab  # noqa: F401  before any test imports mmdet or mmseg
from tools import train as tool

ROOT = Path(__file__).parents[2]
KINDS = 'rectangle', 'ellipse'
COLOURS = (240, 180, 20), (20, 140, 240)

COMMON = """
backbone = dict(type='ZooBackbone', name='nat_pico', depths=(1, 1, 1), embed_dim=16, num_heads=(1, 2, 4))
sampler = dict(type='DefaultSampler', shuffle=True)
in_order = dict(type='DefaultSampler', shuffle=False)
preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=5),
    log=dict(type='RunLog'),
    checkpoint=dict(type='RunCheckpoints', iterations=4, keep=9, best='BEST'),
    export=dict(type='ExportWeights'),
)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
"""

DETECTION = (
    COMMON.replace('BEST', 'coco/bbox_mAP')
    + """
default_scope = 'mmdet'
classes = ('rectangle', 'ellipse')
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
flip = dict(type='RandomFlip', prob=0.5)
resize = dict(type='Resize', scale=(48, 48), keep_ratio=True)
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
data = dict(type='CocoDataset', metainfo=dict(classes=classes), data_prefix=dict(img='images'), ann_file='shapes.json')
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=sampler, batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(**data, pipeline=[*load, flip, dict(type='PackDetInputs')]),
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=in_order,
    dataset=dict(**data, test_mode=True, pipeline=[load[0], resize, dict(type='PackDetInputs', meta_keys=keys)]),
)
val_evaluator = dict(type='CocoMetric', ann_file='shapes.json', metric=['bbox', 'segm'])
anchors = dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[2, 4, 8])
coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[1.0] * 4)
roi = dict(type='SingleRoIExtractor', out_channels=16, featmap_strides=[2, 4])
entropy = dict(type='CrossEntropyLoss', use_sigmoid=True)
assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.3)
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=16, pad_mask=True, **preprocessor),
    backbone=backbone,
    neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=3),
    rpn_head=dict(
        type='RPNHead', in_channels=16, feat_channels=16, anchor_generator=anchors, bbox_coder=coder,
        loss_cls=entropy, loss_bbox=dict(type='L1Loss'),
    ),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(**roi, roi_layer=dict(type='RoIAlign', output_size=5, sampling_ratio=0)),
        bbox_head=dict(
            type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=32, roi_feat_size=5, num_classes=2,
            bbox_coder=dict(coder, target_stds=[0.1, 0.1, 0.2, 0.2]), reg_class_agnostic=True,
            loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=dict(type='L1Loss'),
        ),
        mask_roi_extractor=dict(**roi, roi_layer=dict(type='RoIAlign', output_size=8, sampling_ratio=0)),
        mask_head=dict(
            type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=16, num_classes=2,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(assigner, match_low_quality=True), allowed_border=-1, pos_weight=-1, debug=False,
            sampler=dict(type='RandomSampler', num=32, pos_fraction=0.5, add_gt_as_proposals=False),
        ),
        rpn_proposal=dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(
            assigner=assigner, pos_weight=-1, debug=False, mask_size=16,
            sampler=dict(type='RandomSampler', num=16, pos_fraction=0.5, add_gt_as_proposals=True),
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10, mask_thr_binary=0.5),
    ),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3), clip_grad=dict(max_norm=10))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=4)
val_cfg = dict(type='ValLoop')
"""
)

SEGMENTATION = (
    COMMON.replace('BEST', 'mIoU')
    + """
default_scope = 'mmseg'
crop = dict(type='RandomCrop', crop_size=(32, 32))
metainfo = dict(classes=('ground', 'rectangle', 'ellipse'), palette=[[0, 0, 0], [240, 180, 20], [20, 140, 240]])
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
flip = dict(type='RandomFlip', prob=0.5)
data = dict(
    type='BaseSegDataset', img_suffix='.png', metainfo=metainfo,
    data_prefix=dict(img_path='images', seg_map_path='segments'),
)
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**data, pipeline=[*load, crop, flip, dict(type='PackSegInputs')]),
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=in_order,
    dataset=dict(**data, pipeline=[*load, dict(type='PackSegInputs')]),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
head = dict(channels=16, num_classes=3, norm_cfg=dict(type='SyncBN'), align_corners=False)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32), pad_val=0, seg_pad_val=255, **preprocessor),
    backbone=backbone,
    neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=3),
    decode_head=dict(
        type='FPNHead', in_channels=[16] * 3, in_index=[0, 1, 2], feature_strides=[2, 4, 8], dropout_ratio=0.1,
        loss_decode=dict(type='CrossEntropyLoss'), **head,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3))
param_scheduler = [dict(type='PolyLR', power=0.9, by_epoch=False, end=24)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=11, val_interval=6, dynamic_intervals=[(9, 3)])
val_cfg = dict(type='ValLoop')
"""
)

PANOPTIC = (
    "_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'"
    + COMMON.replace('BEST', 'coco_panoptic/PQ').replace('checkpoint=dict(', 'checkpoint=dict(_delete_=True, ')
    + """
load = [dict(type='LoadImageFromFile'), dict(type='LoadPanopticAnnotations')]
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
things, stuff = ('rectangle', 'ellipse'), ('ground',)
palette = [(240, 180, 20), (20, 140, 240), (0, 0, 0)]
data = dict(
    type='CocoPanopticDataset', ann_file='panoptic.json', data_prefix=dict(img='images', seg='panoptic'),
    metainfo=dict(classes=things + stuff, thing_classes=things, stuff_classes=stuff, palette=palette),
)
train_dataloader = dict(
    _delete_=True, batch_size=2, num_workers=0, sampler=sampler,
    dataset=dict(**data, pipeline=[*load, dict(type='PackDetInputs')]),
)
val_dataloader = dict(
    _delete_=True, batch_size=1, num_workers=0, sampler=in_order,
    dataset=dict(
        **data, test_mode=True,
        pipeline=[load[0], dict(type='Resize', scale=(48, 48)), load[1], dict(type='PackDetInputs', meta_keys=keys)],
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CocoPanopticMetric', ann_file='panoptic.json', seg_prefix='panoptic'),
    dict(type='CocoMetric', ann_file=data_root + '/shapes.json', metric=['bbox', 'segm']),
]
test_evaluator = val_evaluator
kinds = dict(num_things_classes=2, num_stuff_classes=1)
model = dict(
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(_delete_=True, **backbone),
    panoptic_head=dict(
        **kinds, in_channels=[16, 32, 64], strides=[2, 4, 8], num_queries=10, num_transformer_feat_level=2,
        pixel_decoder=dict(
            num_outs=2, encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=dict(num_levels=2))),
        ),
        transformer_decoder=dict(num_layers=2), loss_cls=dict(class_weight=[1.0, 1.0, 1.0, 0.1]),
    ),
    panoptic_fusion_head=kinds,
    train_cfg=dict(num_points=256),
    test_cfg=dict(max_per_image=10, object_mask_thr=0.0),
)
param_scheduler = dict(end=2, milestones=[1])
train_cfg = dict(max_iters=2, val_interval=1, dynamic_intervals=[(2, 2)])
"""
)
CONFIGS = {'detection': DETECTION, 'segmentation': SEGMENTATION, 'panoptic': PANOPTIC}


def draw(number: int, generator: np.random.Generator) -> tuple[Image.Image, list[tuple[int, Image.Image]]]:
    """A picture of 48 x 40 or 40 x 48 pixels with one or two shapes, and the kind and mask of each."""
    size = (48, 40) if number % 2 else (40, 48)
    picture = Image.fromarray(generator.integers(0, 90, (*size[::-1], 3), dtype=np.uint8))
    found = []
    for i in range(1 + number % 2):
        kind, side = int(generator.integers(2)), int(generator.integers(10, 17))
        left, top = 3 + 20 * i, int(generator.integers(2, 20))
        mask = Image.new('1', size)
        for canvas, colour in ((ImageDraw.Draw(picture), COLOURS[kind]), (ImageDraw.Draw(mask), 1)):
            getattr(canvas, KINDS[kind])((left, top, left + side, top + side), fill=colour)
        found.append((kind, mask))
    return picture, found


@pytest.fixture(scope='session')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve images/, and what is in them.

    segments/ and panoptic/ (0 and 1 are the ground), shapes.json and panoptic.json, COCO annotations of both kinds.
    """
    folder, generator = tmp_path_factory.mktemp('shapes'), np.random.default_rng(0)
    images, annotations = [], []
    panoptic: list[dict] = []
    for name in ('images', 'segments', 'panoptic'):
        (folder / name).mkdir()
    for number in range(12):
        picture, found = draw(number, generator)
        file, segments = f'{number}.png', np.zeros(picture.size[::-1], np.uint8)
        numbers, kinds = np.ones_like(segments), [3]
        picture.save(folder / 'images' / file)
        images.append({'id': number, 'file_name': file, 'width': picture.width, 'height': picture.height})
        for kind, mask in found:
            pixels = np.asarray(mask, np.uint8)
            segments[pixels > 0] = kind + 1
            kinds.append(kind + 1)
            numbers[pixels > 0] = len(kinds)
            code = rle.encode(np.asfortranarray(pixels))
            annotation = {'id': len(annotations) + 1, 'image_id': number, 'category_id': kind + 1, 'iscrowd': 0}
            annotation |= {'bbox': rle.toBbox(code).tolist(), 'area': int(pixels.sum())}
            annotations.append(annotation | {'segmentation': code | {'counts': code['counts'].decode()}})
        Image.fromarray(segments).save(folder / 'segments' / file)
        Image.merge('RGB', [Image.fromarray(plane) for plane in (numbers, 0 * numbers, 0 * numbers)]).save(
            folder / 'panoptic' / file
        )
        found_segments = [segment_of(numbers == i, i, kind) for i, kind in enumerate(kinds, 1)]
        panoptic.append({'image_id': number, 'file_name': file, 'segments_info': found_segments})
    categories = [{'id': i, 'name': name} for i, name in enumerate(KINDS, 1)]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'shapes.json').write_text(json.dumps(content))
    categories = [{'id': i, 'name': name, 'isthing': int(i < 3)} for i, name in enumerate((*KINDS, 'ground'), 1)]
    content = {'images': images, 'annotations': panoptic, 'categories': categories}
    (folder / 'panoptic.json').write_text(json.dumps(content))
    return folder


def segment_of(mask: np.ndarray, number: int, category: int) -> dict:
    """The entry of a segment in panoptic annotations."""
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    entry = {'id': number, 'category_id': category, 'iscrowd': 0}
    return entry | {'bbox': rle.toBbox(code).tolist(), 'area': int(mask.sum())}


def write(folder: Path, data_root: Path, task: str, lines: str = '') -> str:
    """Writes the config file of a task, with lines that change it at its end, and returns its path."""
    path = folder / f'{task}_shapes.py'
    path.write_text(f"data_root = '{data_root}'\n{CONFIGS[task]}{lines}")
    return str(path)


@pytest.fixture
def config(tmp_path: Path, shapes: Path) -> Callable[..., str]:
    """`write` for the shapes."""
    return partial(write, tmp_path, shapes)


def train(config: str, folder: Path, *arguments: str) -> Path:
    """Runs the training tool in this process and returns the work folder."""
    torch.set_num_threads(1)  # the networks are too small to share out
    assert tool.main([config, '--work-dir', str(folder), '--debug', *arguments]) == 0
    return folder


@pytest.fixture(scope='session')
def trained(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Callable[[str], tuple[str, Path]]:
    """The config of a task and the folder of its run, which is made once."""

    @cache
    def run(task: str) -> tuple[str, Path]:
        folder = tmp_path_factory.mktemp(task)
        path = write(folder, shapes, task)
        return path, train(path, folder / 'run')

    return run

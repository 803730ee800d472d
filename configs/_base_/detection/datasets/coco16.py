# The first 16 training images of COCO that have objects, to be learnt by heart: the same images train and validate
size = dict(type='Resize', scale=(448, 448), keep_ratio=True)
load = dict(type='LoadImageFromFile')
masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
images = dict(
    type='CocoDataset',
    ann_file='annotations/instances_train.json',
    data_prefix=dict(img='images/train'),
    filter_cfg=dict(filter_empty_gt=True, min_size=32),
    indices=16,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**images, pipeline=[load, masks, size, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]),
)
# the whole annotation file would count the images that are left out: the metric reads the objects of these images
told = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**images, pipeline=[load, size, masks, dict(type='PackDetInputs', meta_keys=told)]),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', metric=['bbox', 'segm'])
test_evaluator = val_evaluator

# COCO 2017 as it is distributed, data_root/{train2017,val2017,annotations}; images of at most 800 x 1333 pixels
images = dict(num_workers=2, persistent_workers=True, pin_memory=True)
load = dict(type='LoadImageFromFile')
boxes = dict(type='LoadAnnotations', with_bbox=True)
resize = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
flip = dict(type='RandomFlip', prob=0.5)
pack = dict(type='PackDetInputs')
pack_test = dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))

train_dataloader = dict(
    **images,
    batch_size=2,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CocoDataset',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[load, boxes, resize, flip, pack],
    ),
)
val_dataloader = dict(
    **images,
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017'),
        test_mode=True,
        pipeline=[load, resize, boxes, pack_test],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file='annotations/instances_val2017.json', metric=['bbox'])
test_evaluator = val_evaluator

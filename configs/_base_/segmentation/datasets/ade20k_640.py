_base_ = 'ade20k.py'
crop_size = (640, 640)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *load,
            dict(type='RandomResize', scale=(2560, 640), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[load[0], dict(type='Resize', scale=(2560, 640), keep_ratio=True), load[1], dict(type='PackSegInputs')]
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(size=crop_size)

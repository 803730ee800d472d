# As Mask2Former has it: one of sixteen shorter edges, and crops of any mixture of classes
_base_ = 'ade20k_640.py'
crop_size = (640, 640)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(
                type='RandomChoiceResize',
                scales=[int(640 * 0.1 * step) for step in range(5, 21)],
                resize_type='ResizeShortestEdge',
                max_size=2560,
            ),
            dict(type='RandomCrop', crop_size=crop_size),
            dict(type='PhotoMetricDistortion'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
data_preprocessor = dict(test_cfg=dict(size_divisor=32))

_base_ = ['models/sparse_rcnn.py', 'datasets/coco_boxes_crops.py', 'schedules/3x.py', 'runtime.py']
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    optimizer=dict(lr=2.5e-5, weight_decay=1e-4),
    paramwise_cfg=dict(_delete_=True),
    clip_grad=dict(max_norm=1, norm_type=2),
)

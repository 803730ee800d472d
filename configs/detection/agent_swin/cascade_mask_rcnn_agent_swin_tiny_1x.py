_base_ = '../../_base_/detection/cascade_mask_rcnn_1x.py'
model = dict(
    backbone=dict(
        name='agent_swin_tiny_224',
        out_norms=True,
        drop_path_rate=0.1,
        agent_shapes=[(9, 9), (12, 12), (14, 14), (7, 7)],
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={f'{name}_bias': dict(decay_mult=0.0) for name in ('an', 'na', 'ah', 'aw', 'ha', 'wa')}
    )
)

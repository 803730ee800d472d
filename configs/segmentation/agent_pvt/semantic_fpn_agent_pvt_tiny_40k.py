_base_ = '../../_base_/segmentation/semantic_fpn_ade20k_40k.py'
model = dict(
    backbone=dict(
        name='agent_pvt_tiny_224',
        out_norms=None,
        agent_shapes=[(12, 12), (16, 16), (28, 28), (28, 28)],
        drop_path_rate=0.1,
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

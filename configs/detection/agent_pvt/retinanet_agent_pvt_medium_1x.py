_base_ = '../../_base_/detection/retinanet_1x_plain.py'
model = dict(
    backbone=dict(
        name='agent_pvt_medium_224', drop_path_rate=0.2, agent_shapes=[(12, 12), (16, 16), (28, 28), (28, 28)]
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

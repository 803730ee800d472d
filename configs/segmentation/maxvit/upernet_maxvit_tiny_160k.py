# Not in the paper: a yardstick with the settings of Swin
_base_ = '../../_base_/segmentation/upernet_ade20k_160k.py'
model = dict(
    backbone=dict(name='zoo_maxvit_tiny_tf_512', out_norms=None, drop_path_rate=0.2),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)

# UPerNet (https://arxiv.org/abs/1807.10221) with the auxiliary head on the third map
head = dict(
    dropout_ratio=0.1,
    num_classes=150,
    norm_cfg=dict(type='BN'),
    align_corners=False,
)
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ZooBackbone', pretrained=True, out_norms=True),
    decode_head=dict(
        type='UPerHead',
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        **head,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        **head,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
    ),
    test_cfg=dict(mode='whole'),
)

# Mask2Former (https://arxiv.org/abs/2112.01527) for classes of pixels
classes = 150
cross_entropy = dict(type='mmdet.CrossEntropyLoss', reduction='mean')
dice = dict(type='mmdet.DiceLoss', use_sigmoid=True, activate=True, reduction='mean', naive_dice=True, eps=1.0)
attention = dict(embed_dims=256, num_heads=8, batch_first=True)
mlp = dict(embed_dims=256, num_fcs=2, act_cfg=dict(type='ReLU', inplace=True))
position = dict(num_feats=128, normalize=True)
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ZooBackbone', pretrained=True, out_norms=True),
    decode_head=dict(
        type='Mask2FormerHead',
        strides=[4, 8, 16, 32],
        feat_channels=256,
        out_channels=256,
        num_classes=classes,
        num_queries=100,
        num_transformer_feat_level=3,
        align_corners=False,
        enforce_decoder_input_project=False,
        positional_encoding=position,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder',
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=32),
            act_cfg=dict(type='ReLU'),
            encoder=dict(
                num_layers=6,
                layer_cfg=dict(
                    self_attn_cfg=dict(**attention, num_levels=3, num_points=4),
                    ffn_cfg=dict(**mlp, feedforward_channels=1024),
                ),
            ),
            positional_encoding=position,
        ),
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=9,
            layer_cfg=dict(
                self_attn_cfg=attention,
                cross_attn_cfg=attention,
                ffn_cfg=dict(**mlp, feedforward_channels=2048),
            ),
        ),
        loss_cls=dict(**cross_entropy, use_sigmoid=False, loss_weight=2.0, class_weight=[1.0] * classes + [0.1]),
        loss_mask=dict(**cross_entropy, use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(**dice, loss_weight=5.0),
        train_cfg=dict(
            num_points=12544,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type='mmdet.HungarianAssigner',
                match_costs=[
                    dict(type='mmdet.ClassificationCost', weight=2.0),
                    dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                    dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type='mmdet.MaskPseudoSampler'),
        ),
    ),
    test_cfg=dict(mode='whole'),
)

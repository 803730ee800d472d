_base_ = 'mmdet::mask2former/mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic.py'
custom_imports = dict(imports=['zoo.openmmlab', 'zoo.training'])
model = dict(
    backbone=dict(
        _delete_=True,
        type='ZooBackbone',
        name='dinat_large_21k_11x11',
        pretrained=True,
        out_norms=True,
        drop_path_rate=0.3,
        dilations=[[1, 14, 1], [1, 4, 1, 7], [*[1, 2, 1, 3] * 4, 1, 3], [1]],
    ),
)
queries = {name: dict(decay_mult=0.0) for name in ('query_embed', 'query_feat', 'level_embed')}
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(_delete_=True, backbone=dict(lr_mult=0.1), **queries)))

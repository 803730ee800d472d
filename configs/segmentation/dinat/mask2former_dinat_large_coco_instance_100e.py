_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
custom_imports = dict(imports=['zoo.openmmlab', 'zoo.training'])
iterations = 737500
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
    panoptic_head=dict(num_queries=200, in_channels=[192, 384, 768, 1536]),
)
param_scheduler = dict(end=iterations, milestones=[655556, 710184])
train_cfg = dict(max_iters=iterations, dynamic_intervals=[(735001, iterations)])

custom_imports = dict(imports=['zoo.openmmlab', 'zoo.training'])
default_scope = 'mmdet'
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    log=dict(type='RunLog'),
    checkpoint=dict(type='RunCheckpoints', epochs=1, best='coco/bbox_mAP'),
    visualization=dict(type='DetVisualizationHook'),
)
visualizer = dict(
    type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
)
log_processor = dict(window_size=50)
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))

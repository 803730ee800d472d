# mmseg on any machine: plain batch norms, which become synchronous ones under torchrun
custom_imports = dict(imports=['zoo.openmmlab', 'zoo.training'])
default_scope = 'mmseg'
sync_bn = 'torch'
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=16000, max_keep_ckpts=2, save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'),
)
visualizer = dict(
    type='SegLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)
log_processor = dict(window_size=50, by_epoch=False)
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
tta_model = dict(type='SegTTAModel')

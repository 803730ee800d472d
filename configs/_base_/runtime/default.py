default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        save_best='top1',
        rule='greater',
        backend_args=dict(backend='AtomicLocalBackend'),
    ),
    log=dict(type='RunLog'),
    classes=dict(type='MatchingClasses'),
    plain=dict(type='PlainCheckpoint'),
    export=dict(type='ExportWeights'),
)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
log_processor = dict(window_size=50)
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))

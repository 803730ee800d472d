_base_ = ['datasets/imagenet.py', 'schedules/adamw_300e.py', 'runtime/default.py']
model = dict(
    type='Classifier',
    loss=dict(type='soft_target'),
    data_preprocessor=dict(
        type='ImagePreprocessor',
        erase=dict(type='TimmErase', probability=0.25, mode='pixel'),
        mixup=dict(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=1000),
    ),
)

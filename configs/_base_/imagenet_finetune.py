_base_ = ['datasets/imagenet.py', 'schedules/adamw_finetune_30e.py', 'runtime/default.py']
train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=64)
model = dict(
    type='Classifier',
    loss=dict(type='label_smoothing', smoothing=0.1),
    data_preprocessor=dict(
        type='ImagePreprocessor',
        erase=dict(type='TimmErase', probability=0.25, mode='pixel'),
    ),
)

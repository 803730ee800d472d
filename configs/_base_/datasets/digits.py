train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    collate_fn=dict(type='take_batch'),
    dataset=dict(type='DigitsDataset', split='train'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True,
)
val_dataloader = dict(
    batch_size=120,
    num_workers=0,
    collate_fn=dict(type='take_batch'),
    dataset=dict(type='DigitsDataset', split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
model = dict(
    num_classes=10,
    data_preprocessor=dict(
        type='ImagePreprocessor',
        mean=(0.308, 0.308, 0.308),
        std=(0.349, 0.349, 0.349),
        augment=[dict(type='BatchCropFlip', shift=2, flip=0.0)],
    ),
)

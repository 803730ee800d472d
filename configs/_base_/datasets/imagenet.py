# ImageNet-1k as folders of classes, data_root/train and data_root/val; augmentation of timm's training script
files = dict(num_workers=8, persistent_workers=True, pin_memory=True, collate_fn=dict(type='default_collate'))

train_dataloader = dict(
    **files,
    batch_size=128,
    drop_last=True,
    dataset=dict(
        type='FolderDataset',
        folder='train',
        transform=dict(
            is_training=True,
            input_size=224,
            auto_augment='rand-m9-mstd0.5-inc1',
            color_jitter=0.4,
            interpolation='random',
        ),
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    **files,
    batch_size=128,
    dataset=dict(
        type='FolderDataset',
        folder='val',
        transform=dict(input_size=224, crop_pct=0.875, interpolation='bicubic'),
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)

cifar10 = dict(
    type='NpzDataset',
    file='cifar10_jpeg.npz',
    classes=('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'),
)
arrays = dict(num_workers=0, collate_fn=dict(type='take_batch'))

train_dataloader = dict(
    **arrays,
    batch_size=128,
    drop_last=True,
    dataset=dict(**cifar10, split='train'),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    **arrays,
    batch_size=250,
    dataset=dict(**cifar10, split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
model = dict(
    num_classes=10,
    data_preprocessor=dict(
        type='ImagePreprocessor',
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.247, 0.2435, 0.2616),
        augment=[dict(type='BatchCropFlip', shift=4)],
        erase=dict(type='BatchErase', size=10, probability=0.5),
    ),
)

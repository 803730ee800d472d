# ImageNet-1k with random crops and mirror images alone, as torchvision's scripts train ResNets
_base_ = 'imagenet.py'
train_dataloader = dict(
    batch_size=64,
    drop_last=False,
    dataset=dict(transform=dict(auto_augment=None, color_jitter=None, interpolation='bilinear')),
)
val_dataloader = dict(dataset=dict(transform=dict(interpolation='bilinear')))

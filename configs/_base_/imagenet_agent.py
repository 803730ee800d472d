# The Agent transformers: Swin's script, its option --amp set, and images are squashed to a square before the crop
_base_ = 'imagenet_swin.py'
val_dataloader = dict(dataset=dict(transform=dict(crop_mode='squash')))

# from scratch
_base_ = 'agent_swin_base_224_imagenet.py'
train_dataloader = dict(dataset=dict(transform=dict(input_size=288)))
val_dataloader = dict(dataset=dict(transform=dict(input_size=288, crop_pct=1.0)))
model = dict(name='agent_swin_small_288', drop_path_rate=0.3)

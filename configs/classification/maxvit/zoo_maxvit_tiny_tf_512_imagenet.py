_base_ = 'zoo_maxvit_tiny_tf_384_imagenet.py'
train_dataloader = dict(dataset=dict(transform=dict(input_size=512)))
val_dataloader = dict(dataset=dict(transform=dict(input_size=512)))
model = dict(name='zoo_maxvit_tiny_tf_512')

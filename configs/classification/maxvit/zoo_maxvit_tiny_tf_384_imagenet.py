# 512 images a step, as 8 processes of 64; the authors begin with a new classifier, here it is that of the weights
_base_ = 'zoo_maxvit_tiny_tf_224_imagenet.py'
train_dataloader = dict(batch_size=64, dataset=dict(transform=dict(input_size=384)))
val_dataloader = dict(dataset=dict(transform=dict(input_size=384, crop_pct=1.0, crop_mode='squash')))
model = dict(
    name='zoo_maxvit_tiny_tf_384',
    init='zoo_maxvit_tiny_tf_224.google_in1k',
    data_preprocessor=dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
)
optim_wrapper = dict(optimizer=dict(lr=5e-5, weight_decay=1e-8))
param_scheduler = None
auto_scale_lr = dict(base_batch_size=512)
train_cfg = dict(max_epochs=30)

_base_ = 'pvt_tiny_imagenet.py'
model = dict(name='pvt_medium', drop_path_rate=0.3)
optim_wrapper = dict(clip_grad=dict(_delete_=True, max_norm=1.0))

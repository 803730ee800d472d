_base_ = 'zoo_focalnet_tiny_iso_imagenet.py'
model = dict(name='zoo_focalnet_small_iso', drop_path_rate=0.2)

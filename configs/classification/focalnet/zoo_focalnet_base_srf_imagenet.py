_base_ = 'zoo_focalnet_tiny_srf_imagenet.py'
model = dict(name='zoo_focalnet_base_srf', drop_path_rate=0.5)

_base_ = 'upernet_focalnet_tiny_srf_160k.py'
model = dict(backbone=dict(name='zoo_focalnet_small_srf', drop_path_rate=0.3))

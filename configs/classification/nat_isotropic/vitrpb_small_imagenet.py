_base_ = 'nat_isotropic_small_imagenet.py'
model = dict(name='vitrpb_small', drop_path_rate=0.1)

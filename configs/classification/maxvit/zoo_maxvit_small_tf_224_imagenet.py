_base_ = 'zoo_maxvit_tiny_tf_224_imagenet.py'
model = dict(name='zoo_maxvit_small_tf_224', drop_path_rate=0.3)

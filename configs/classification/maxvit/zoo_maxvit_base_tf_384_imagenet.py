_base_ = 'zoo_maxvit_tiny_tf_384_imagenet.py'
model = dict(name='zoo_maxvit_base_tf_384', drop_path_rate=0.4, init='zoo_maxvit_base_tf_224.google_in1k')

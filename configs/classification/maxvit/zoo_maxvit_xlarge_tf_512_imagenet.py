# the drop path rate is that of TensorFlow's model garden: the authors' repository has none for this size
_base_ = 'zoo_maxvit_tiny_tf_512_imagenet.py'
model = dict(name='zoo_maxvit_xlarge_tf_512', drop_path_rate=0.2, init='zoo_maxvit_xlarge_tf_224.google_in21k')

# the script of BiFormer, whose authors compare with it
_base_ = '../../_base_/imagenet_deit.py'
model = dict(name='maxvit_stl', drop_path_rate=0.1)

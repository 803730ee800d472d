_base_ = '../../_base_/imagenet_finetune.py'
model = dict(name='dinat_s_large', drop_path_rate=0.35, init='dinat_s_large_21k.shi_in22k')

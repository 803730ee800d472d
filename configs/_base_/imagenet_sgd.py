_base_ = ['datasets/imagenet_crops.py', 'schedules/sgd_100e.py', 'runtime/default.py']
model = dict(type='Classifier', loss=dict(type='cross_entropy'), data_preprocessor=dict(type='ImagePreprocessor'))

_base_ = ['models/retinanet.py', 'datasets/coco_boxes.py', 'schedules/1x_sgd.py', 'runtime.py']
optim_wrapper = dict(optimizer=dict(lr=0.01))

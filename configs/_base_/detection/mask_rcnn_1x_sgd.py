_base_ = ['models/mask_rcnn.py', 'datasets/coco_masks.py', 'schedules/1x_sgd.py', 'runtime.py']

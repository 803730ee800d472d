_base_ = ['models/mask_rcnn.py', 'datasets/coco_masks.py', 'schedules/1x_plain.py', 'runtime.py']

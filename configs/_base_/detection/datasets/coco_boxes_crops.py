_base_ = ['coco_boxes.py', 'crops.py']
train_dataloader = dict(dataset=dict(pipeline=[_base_.load, _base_.boxes, _base_.flip, _base_.crops, _base_.pack]))

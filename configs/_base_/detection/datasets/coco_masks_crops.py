_base_ = ['coco_masks.py', 'crops.py']
train_dataloader = dict(dataset=dict(pipeline=[_base_.load, _base_.masks, _base_.flip, _base_.crops, _base_.pack]))

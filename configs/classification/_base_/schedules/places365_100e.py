# CKD's released schedule for Places365 (arXiv 2404.14109).
_base_ = ['./imagenet_200e.py']
train_cfg = dict(max_epochs=100)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=100, milestones=[30, 60, 90], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=256)

# The teacher.
_base_ = ['../_base_/models/retinanet_r18_fpn_digit_scenes.py', '../_base_/datasets/digit_scenes_hard.py',
          '../_base_/schedules/digit_scenes_12e_adamw.py']
train_cfg = dict(max_epochs=5, val_interval=5)
train_dataloader = dict(batch_size=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=5, milestones=[4], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=4)

# The demo's teacher: half of R18's channels, twice the epochs; its weights lie beside the demo's code.
_base_ = ['./faster_rcnn_r18_fpn_9e_digit_scenes.py']
model = dict(backbone=dict(base_channels=32, stem_channels=32), neck=dict(in_channels=[32, 64, 128, 256]))
train_cfg = dict(max_epochs=18, val_interval=18)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=18, milestones=[13, 17], gamma=0.1),
]

# The demo's student, on its 720 scenes: 900 steps, with AdamW, which is quicker at first.
_base_ = ['./faster_rcnn_r18w16_fpn_9e_digit_scenes.py']
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=5, val_interval=5)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=5, milestones=[4], gamma=0.1),
]

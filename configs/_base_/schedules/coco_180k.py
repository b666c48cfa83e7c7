# One budget for all methods: the 180k iterations of the released baselines, half of what CKD was given (arXiv
# 2404.14109), and SGD with the learning rate of the CKD runs. The warm-up is that of mmdet's 90k schedules.
_base_ = ['mmdet::_base_/schedules/schedule_1x.py', 'mmdet::_base_/default_runtime.py']
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=180_000, val_interval=10_000)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=180_000, milestones=[120_000, 160_000], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10_000))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(base_batch_size=8)

# From scratch, on one core: 30 epochs of 200 images in batches of 20.
_base_ = ['mmpretrain::_base_/default_runtime.py']
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=10)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=30, T_max=30, eta_min=0.0,
                        convert_to_iter_based=True)]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=2))
randomness = dict(seed=0)
auto_scale_lr = dict(base_batch_size=20)

# What CKD was given (arXiv 2404.14109), twice its baselines' budget. The rate falls after every epoch.
_base_ = ['./cifar100_240e.py']
train_cfg = dict(max_epochs=480)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=480, T_max=480, eta_min=0.0)]

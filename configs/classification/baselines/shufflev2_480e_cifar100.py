# The student alone under CKD's budget (arXiv 2404.14109), twice its baselines'; the rate falls each epoch. Not run.
_base_ = ['./shufflev2_240e_cifar100.py']
train_cfg = dict(max_epochs=480)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=480, T_max=480, eta_min=0.0)]

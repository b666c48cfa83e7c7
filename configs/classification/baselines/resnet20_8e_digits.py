# The teacher: deeper, and it has all 80 labels of each digit.
_base_ = ['./resnet8_30e_digits.py']
model = dict(backbone=dict(arch='resnet20'))
train_dataloader = dict(batch_size=32, dataset=dict(images_per_class=None))
train_cfg = dict(max_epochs=8, val_interval=8)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=8, T_max=8, eta_min=0.0,
                        convert_to_iter_based=True)]
default_hooks = dict(checkpoint=dict(interval=8))
auto_scale_lr = dict(base_batch_size=32)

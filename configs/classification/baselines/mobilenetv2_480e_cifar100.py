# The student alone, not run: batch and learning rate of the pairs that it is in.
_base_ = ['../_base_/models/mobilenetv2_cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_480e.py']
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=32)

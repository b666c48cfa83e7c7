# PCKD with four rotated views, not run. Ours: the weights, which are published for wrn_40_2 -> wrn_16_2 alone.
_base_ = ['../baselines/resnet20_240e_cifar100.py', '../_base_/alignments/image_pckd.py',
          '../_base_/pipelines/four_views.py']
data_preprocessor = dict(type='ckd_mmdet.ViewsPreprocessor')
train_dataloader = dict(dataset=dict(pipeline=_base_.four_views))
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/classification/baselines/resnet56_240e_cifar100.py',
                 checkpoint='checkpoints/cifar100/resnet56_vanilla/ckpt_epoch_240.pth'),
    alignments=_base_.image_pckd)

# PCKD with four rotated views, not run. Ours: the weights, which are published for wrn_40_2 -> wrn_16_2 alone.
# The last layers have other widths, 128 and 64: their alignment is left out, as in the released code.
_base_ = ['../baselines/wrn_40_1_240e_cifar100.py', '../_base_/alignments/image_pckd_without_centers.py',
          '../_base_/pipelines/four_views.py']
data_preprocessor = dict(type='ckd_mmdet.ViewsPreprocessor')
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=_base_.four_views))
auto_scale_lr = dict(base_batch_size=64)
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/classification/baselines/wrn_40_2_240e_cifar100.py',
                 checkpoint='checkpoints/cifar100/wrn_40_2_vanilla/ckpt_epoch_240.pth'),
    alignments=_base_.image_pckd_without_centers)

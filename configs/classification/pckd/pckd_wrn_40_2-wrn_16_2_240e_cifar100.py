# The published configuration of PCKD (arXiv 2410.14143): four rotated views; not run.
_base_ = ['../baselines/wrn_16_2_240e_cifar100.py', '../_base_/alignments/image_pckd.py',
          '../_base_/pipelines/four_views.py']
data_preprocessor = dict(type='ckd_mmdet.ViewsPreprocessor')
train_dataloader = dict(dataset=dict(pipeline=_base_.four_views))
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/classification/baselines/wrn_40_2_240e_cifar100.py',
                 checkpoint='checkpoints/cifar100/wrn_40_2_vanilla/ckpt_epoch_240.pth'),
    alignments=_base_.image_pckd)

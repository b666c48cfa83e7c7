# CKD's released settings (arXiv 2404.14109), not run; the teacher's weights are of MMPretrain's zoo.
_base_ = ['../baselines/resnet18_200e_imagenet.py']
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmpretrain::resnet/resnet34_8xb32_in1k.py'),
    alignments=dict(
        image=dict(
            aligner=dict(type='ckd_mmdet.ImageAligner'),
            losses=dict(loss_ckd=dict(type='ckd_mmdet.CKDLoss', temperature=1.0, loss_weight=10.0)))))

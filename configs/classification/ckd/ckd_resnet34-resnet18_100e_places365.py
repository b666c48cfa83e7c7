# CKD's released settings (arXiv 2404.14109), not run; train the teacher first.
_base_ = ['../baselines/resnet18_100e_places365.py']
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/classification/baselines/resnet34_100e_places365.py',
                 checkpoint='work_dirs/resnet34_100e_places365/epoch_100.pth'),
    alignments=dict(
        image=dict(
            aligner=dict(type='ckd_mmdet.ImageAligner'),
            losses=dict(loss_ckd=dict(type='ckd_mmdet.CKDLoss', temperature=1.0, loss_weight=10.0)))))

# The control: KD on all sampled RoIs.
_base_ = ['./mask_rcnn_r18w16_fpn_9e_digit_scenes.py', '../_base_/alignments/roi_kd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/baselines/mask_rcnn_r18_fpn_9e_digit_scenes.py',
                 checkpoint='work_dirs/mask_rcnn_r18_fpn_9e_digit_scenes/epoch_9.pth'),
    alignments=_base_.roi_kd)

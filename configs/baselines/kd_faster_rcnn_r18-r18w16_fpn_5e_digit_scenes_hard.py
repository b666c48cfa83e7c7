# The control: KD on all sampled RoIs.
_base_ = ['./faster_rcnn_r18w16_fpn_5e_digit_scenes_hard.py', '../_base_/alignments/roi_kd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/baselines/faster_rcnn_r18_fpn_5e_digit_scenes_hard.py',
                 checkpoint='work_dirs/faster_rcnn_r18_fpn_5e_digit_scenes_hard/epoch_5.pth'),
    alignments=_base_.roi_kd)

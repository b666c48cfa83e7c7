_base_ = ['../baselines/faster_rcnn_r18w16_fpn_5e_digit_scenes_hard.py', '../_base_/alignments/roi_ckd_foreground.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/baselines/faster_rcnn_r18_fpn_5e_digit_scenes_hard.py',
                 checkpoint='work_dirs/faster_rcnn_r18_fpn_5e_digit_scenes_hard/epoch_5.pth'),
    alignments=_base_.roi_ckd_foreground)  # ours: foreground RoIs, weight 1

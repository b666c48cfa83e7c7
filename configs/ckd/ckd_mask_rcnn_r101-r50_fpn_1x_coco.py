# Not run: nobody here has COCO. The released runs use CKD together with ReviewKD and another schedule (360k iterations,
# lr 0.01); the weight 0.1, temperature 1 and all sampled RoIs are theirs.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/alignments/roi_ckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::mask_rcnn/mask-rcnn_r101_fpn_2x_coco.py'),  # weights from the model zoo
    alignments=_base_.roi_ckd)

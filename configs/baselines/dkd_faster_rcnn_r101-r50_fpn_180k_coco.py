# Not run: nobody here has COCO. DKD with the settings released beside CKD: alpha 1, beta 0.25, temperature 1.
_base_ = ['./faster_rcnn_r50_fpn_180k_coco.py', '../_base_/alignments/roi_dkd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),  # weights from the model zoo
    alignments=_base_.roi_dkd)

# Not run: nobody here has COCO. The control: KD on the rows that CKD pairs; its temperature 1 and weight 1 are
# ours.
_base_ = ['./faster_rcnn_r18_fpn_180k_coco.py', '../_base_/alignments/roi_kd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),  # weights from the model zoo
    alignments=_base_.roi_kd)

# Not run: nobody here has COCO. The control: KD on the rows that CKD pairs; its temperature 1 and weight 1 are
# ours.
_base_ = ['./mask_rcnn_r50_fpn_180k_coco.py', '../_base_/alignments/roi_kd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::mask_rcnn/mask-rcnn_r101_fpn_2x_coco.py'),  # weights from the model zoo
    alignments=_base_.roi_kd)

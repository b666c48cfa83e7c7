# Not run: nobody here has COCO. CKD was not released for dense heads: rows, temperature and weight are # ours.
_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py', '../_base_/alignments/dense_ckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py'),  # weights from the model zoo
    alignments=_base_.dense_ckd)

# Not run: nobody here has COCO. CKD was not released for query heads: rows, temperature and weight are # ours.
_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../_base_/alignments/query_ckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'),  # weights from the model zoo
    alignments=_base_.query_ckd)

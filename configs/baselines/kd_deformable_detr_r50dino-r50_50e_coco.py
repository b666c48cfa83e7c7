# Not run: nobody here has COCO. The control: KD on the rows that suit it.
_base_ = ['./deformable_detr_r50_50e_coco.py', '../_base_/alignments/query_kd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'),  # weights from the model zoo
    alignments=_base_.query_kd)

# Not run: nobody here has COCO. The control: KD on the rows that suit it.
_base_ = ['./retinanet_r50_fpn_2x_coco.py', '../_base_/alignments/dense_kd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py'),  # weights from the model zoo
    alignments=_base_.dense_kd)

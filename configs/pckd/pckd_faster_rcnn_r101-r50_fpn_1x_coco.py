# Not run: nobody here has COCO. PCKD on RoIs is ours, as its weights are.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/alignments/roi_pckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),  # weights from the model zoo
    alignments=_base_.roi_pckd)

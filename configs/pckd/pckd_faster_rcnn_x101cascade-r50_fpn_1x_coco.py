# Not run: nobody here has COCO. PCKD on RoIs is ours, as its weights are; the last stage of a cascade teaches.
_base_ = ['../baselines/faster_rcnn_r50_fpn_1x_coco.py', '../_base_/alignments/roi_stage2_pckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::cascade_rcnn/cascade-rcnn_x101-32x4d_fpn_20e_coco.py'),  # weights from the model zoo
    alignments=_base_.roi_stage2_pckd)

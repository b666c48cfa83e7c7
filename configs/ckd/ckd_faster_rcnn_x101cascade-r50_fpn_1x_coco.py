# Not run: nobody here has COCO. The last stage of a cascade teaches; weight 0.1, temperature 1 and all sampled RoIs as
# released for two Faster R-CNNs.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/alignments/roi_stage2_ckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::cascade_rcnn/cascade-rcnn_x101-32x4d_fpn_20e_coco.py'),  # weights from the model zoo
    alignments=_base_.roi_stage2_ckd)

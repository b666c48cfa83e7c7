# Not run: nobody here has COCO. The weight 2.0 was released for this pair with ReviewKD beside CKD; for
# ReviewKD alone, and beside DKD, it is ours: one weight for all that are compared.
_base_ = ['./faster_rcnn_mobilenetv2_fpn_180k_coco.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py'),  # weights from the model zoo
    alignments=dict(neck=dict(
        aligner=dict(type='NeckAligner'),
        losses=dict(loss_review=dict(type='ReviewKDLoss', mid_channels=256, loss_weight=2.0)))))

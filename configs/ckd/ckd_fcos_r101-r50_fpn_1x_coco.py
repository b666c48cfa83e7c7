# Not run: nobody here has COCO. CKD was not released for dense heads: rows, temperature and weight are # ours.
_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', '../_base_/alignments/dense_ckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py'),  # weights from the model zoo
    alignments=_base_.dense_ckd)

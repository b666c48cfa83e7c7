# Not run: nobody here has COCO. DKD with the settings released beside CKD (alpha 1, beta 0.25, temperature 1),
# together with ReviewKD of the weight 2.0.
_base_ = ['./reviewkd_faster_rcnn_r50-mobilenetv2_fpn_180k_coco.py', '../_base_/alignments/roi_dkd.py']
model = dict(alignments=_base_.roi_dkd)

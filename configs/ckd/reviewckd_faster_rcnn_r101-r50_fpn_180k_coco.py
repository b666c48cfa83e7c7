# Not run: nobody here has COCO. CKD as released (all sampled RoIs, weight 0.1, temperature 1), together with
# ReviewKD of the weight released for this pair, 1.0; here under the budget of its baselines, half of the released.
_base_ = ['../baselines/reviewkd_faster_rcnn_r101-r50_fpn_180k_coco.py', '../_base_/alignments/roi_ckd.py']
model = dict(alignments=_base_.roi_ckd)

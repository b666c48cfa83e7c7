# The foreground, and of the background the 16 RoIs of which the teacher is most confident.
_base_ = ['../ckd/ckd_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py']
model = dict(alignments=dict(roi=dict(selector=dict(_delete_=True, type='ForegroundPlus', k=16))))

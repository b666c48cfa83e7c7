# The student alone: 180k iterations of 8 images. Not run: nobody here has COCO.
_base_ = ['./faster_rcnn_r50_fpn_180k_coco.py']
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        norm_eval=True,  # as the R50
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2')),
    neck=dict(in_channels=[24, 32, 96, 320]))
find_unused_parameters = True  # the backbone's last convolution feeds no level; as in mmdet's YOLOv3 MobileNetV2

# The student alone: 180k iterations of 8 images. Not run: nobody here has COCO.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../_base_/datasets/coco_multi_scale_masks.py',
          '../_base_/schedules/coco_180k.py']

# A Swin backbone under Mask R-CNN, in half the usual windows' images.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './_base_/small_data.py']
model = dict(
    backbone=dict(_delete_=True, type='SwinTransformer', embed_dims=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24],
                  window_size=7, mlp_ratio=4, qkv_bias=True, drop_path_rate=0.2, patch_norm=True,
                  out_indices=(0, 1, 2, 3), with_cp=False, convert_weights=False),
    neck=dict(in_channels=[96, 192, 384, 768]),
    roi_head=dict(bbox_head=dict(num_classes=5), mask_head=dict(num_classes=5)))
train_dataloader = dict(dataset=dict(metainfo=dict(classes=('car', 'person', 'sign', 'light', 'dog'))))

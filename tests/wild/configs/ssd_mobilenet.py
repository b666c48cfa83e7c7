# MobileNet under an SSD, softmax on a dense head.
_base_ = ['mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', './_base_/small_data.py']
model = dict(bbox_head=dict(num_classes=2))
metainfo = dict(classes=('car', 'person'))
train_dataloader = dict(batch_size=2, num_workers=0, batch_sampler=None, dataset=dict(
    _delete_=True, type='CocoDataset', data_root='data/', ann_file='two_train.json', data_prefix=dict(img='images/'),
    metainfo=metainfo, pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(metainfo=metainfo, ann_file='two_val.json', pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/two_val.json')
test_evaluator = val_evaluator
custom_hooks = [dict(type='NumClassCheckHook')]
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)

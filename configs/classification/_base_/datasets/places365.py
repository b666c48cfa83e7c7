# Places365-Standard, "small images" of 256x256 in folders train/<class> and val/<class> (the easy directory structure).
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64.py']
data_preprocessor = dict(num_classes=365)
train_dataloader = dict(
    batch_size=256, num_workers=16, persistent_workers=True,
    dataset=dict(_delete_=True, type='CustomDataset', data_root='data/places365_standard', data_prefix='train',
                 pipeline=_base_.train_pipeline))
val_dataloader = dict(
    batch_size=256, num_workers=16, persistent_workers=True,
    dataset=dict(_delete_=True, type='CustomDataset', data_root='data/places365_standard', data_prefix='val',
                 pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

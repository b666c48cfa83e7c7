# PCKD with its four rotated views: four times the cost.
_base_ = ['./pckd_resnet20-resnet8_30e_digits.py']
data_preprocessor = dict(type='ckd_mmdet.ViewsPreprocessor')
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='ckd_mmdet.RotatedViews', transforms=[dict(type='RandomCrop', crop_size=32, padding=4)]),
    dict(type='PackInputs')]))

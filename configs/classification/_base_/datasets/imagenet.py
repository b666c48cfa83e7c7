# ImageNet-1K: MMPretrain's pipelines, with the released 512 images a step, all in one process: CKD contrasts those of
# one process. With 8 of them set `batch_size` to 64, and the loss has 64 images to contrast.
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64.py']
train_dataloader = dict(batch_size=512, num_workers=16, persistent_workers=True)
val_dataloader = dict(batch_size=256, num_workers=16, persistent_workers=True)
test_dataloader = val_dataloader

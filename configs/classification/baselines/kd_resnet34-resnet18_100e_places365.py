# The control: KD with its settings for ImageNet, for want of released ones, under the budget of CKD; not run.
_base_ = ['../ckd/ckd_resnet34-resnet18_100e_places365.py']
model = dict(
    student=dict(head=dict(loss=dict(loss_weight=0.5))),
    alignments=dict(
        image=dict(
            losses=dict(
                _delete_=True,
                loss_kd=dict(type='ckd_mmdet.KDLoss', temperature=1.0, loss_weight=0.5)))))

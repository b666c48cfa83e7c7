# The control: KD with its released weights for CIFAR-100, 0.1 beside 0.9.
_base_ = ['../ckd/ckd_resnet20-resnet8_30e_digits.py']
model = dict(
    student=dict(head=dict(loss=dict(loss_weight=0.1))),
    alignments=dict(
        image=dict(
            losses=dict(
                _delete_=True,
                loss_kd=dict(type='ckd_mmdet.KDLoss', temperature=4.0, loss_weight=0.9)))))

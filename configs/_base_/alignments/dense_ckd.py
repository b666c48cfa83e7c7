# CKD on the anchors that the student's own loss gives an object. Ours: nothing of the kind was released. For a head
# whose labels cannot be had (PAA, YOLOX...), take selector=dict(type='TeacherTopK', k=256).
dense_ckd = dict(
    dense=dict(
        aligner=dict(type='DenseAligner'),
        selector=dict(type='Foreground'),
        losses=dict(loss_ckd=dict(type='CKDLoss', temperature=1.0, loss_weight=1.0))))

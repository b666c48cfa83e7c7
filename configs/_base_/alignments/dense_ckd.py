# CKD on the anchors of a dense head of which the teacher is most confident; ours: nothing of the kind was released.
dense_ckd = dict(
    dense=dict(
        aligner=dict(type='DenseAligner'),
        selector=dict(type='TeacherTopK', k=1024),
        losses=dict(loss_ckd=dict(type='CKDLoss', temperature=1.0, loss_weight=1.0))))

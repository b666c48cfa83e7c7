# KD on the anchors of a dense head of which the teacher is most confident; temperature 1 and weight 1 are ours.
dense_kd = dict(
    dense=dict(
        aligner=dict(type='DenseAligner'),
        selector=dict(type='TeacherTopK', k=1024),
        losses=dict(loss_kd=dict(type='KDLoss', temperature=1.0, loss_weight=1.0))))

"""The one table of methods: their losses, their rows and weights on what each aligner pairs, and what they suit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Rows and weight of a method on what an aligner pairs."""

    selector: dict | None
    """``None`` where maps are paired."""
    loss_weight: float | str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of a loss by its name, where they are others than in :data:`METHODS`."""
    aligner: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the aligner, where they are others than its defaults."""
    without_labels: dict | None = None
    """The selector for a student whose rows have no labels, where ``selector`` needs some."""
    one_stage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of a loss by its name for a student without a RoI head, where they are others."""
    shares: bool = False
    """Whether it takes the rows of another method beside it, as only those that hold an object count in it anyway: the
    teacher then need not be asked twice."""


METHODS: dict[str, dict[str, dict]] = {  # the losses of each, by name
    'ckd': dict(loss_ckd=dict(type='CKDLoss')),
    'ckd_released': dict(loss_ckd=dict(type='CKDLoss')),
    'kd': dict(loss_kd=dict(type='KDLoss')),
    'dkd': dict(loss_dkd=dict(type='DKDLoss', alpha=1.0, beta=0.25, temperature=1.0)),  # CKD's authors' for detection
    'dist': dict(loss_dist=dict(type='DISTLoss')),
    'pckd': dict(  # weights in proportion as the published configuration has them
        loss_contrast=dict(type='CategoryContrastLoss', preview=dict(base=1.005), loss_weight=0.05),
        loss_centers=dict(type='CenterAlignmentLoss', loss_weight=1.0),
        loss_features=dict(type='FeatureAlignmentLoss', loss_weight=20.0)),
    'features': dict(loss_alignment=dict(type='FeatureAlignmentLoss')),  # PCKD's, alone
    'ckd_features': dict(loss_ckd_features=dict(type='CKDLoss', on='features', contrast='student_teacher',
                                                temperature=0.1, negatives='other_label', overlap=0.5)),
    'boxes': dict(loss_boxes=dict(type='BoxLoss')),
    'detrdistill': dict(  # weights in proportion as published, where boxes have an L1 term beside
        loss_kd=dict(type='KDLoss', weight_by='confidence', loss_weight=1.0),
        loss_boxes=dict(type='BoxLoss', weight_by='confidence', loss_weight=2.0)),
    'masks': dict(loss_masks=dict(type='MaskLoss')),
    'bckd': dict(  # weights in proportion as released
        loss_quality=dict(type='KDLoss', kind='quality', normalize='positives', loss_weight=1.0),
        loss_boxes=dict(type='BoxLoss', weight_by='gap', normalize='positives', loss_weight=4.0)),
    'ld': dict(loss_ld=dict(type='LDLoss', region='positives', weight_by='confidence'),
               loss_valuable=dict(type='LDLoss', region='valuable')),
    'quality': dict(loss_quality=dict(type='KDLoss', kind='quality', normalize='positives')),
    'crosskd': dict(loss_quality=dict(type='KDLoss', kind='quality'),
                    loss_boxes=dict(type='BoxLoss', weight_by='confidence')),
    'l2': dict(loss_l2=dict(type='L2Loss')),
    'pkd': dict(loss_pkd=dict(type='PKDLoss')),
    'reviewkd': dict(loss_reviewkd=dict(type='ReviewKDLoss')),
    'cwd': dict(loss_cwd=dict(type='CWDLoss')),
    'fgd': dict(loss_fgd=dict(type='FGDLoss')),
    'mgd': dict(loss_mgd=dict(type='MGDLoss')),
}

SAYS = {  # each in a few words, for `--help`
    'ckd': 'CKD, the directions of the score vectors, each against those of the other rows',
    'ckd_released': "CKD as its authors release it, of all RoIs with the weight 0.1, or of whole images",
    'kd': 'KD, the class probabilities',
    'dkd': 'DKD, the labelled class and the others apart',
    'dist': 'DIST, correlations within a row and over the rows',
    'pckd': 'PCKD, contrast of categories, category centres and features',
    'features': "PCKD's features alone",
    'ckd_features': 'CKD of features: of RoIs, among other labels and places',
    'boxes': "the boxes, both sides' decoded, by GIoU",
    'detrdistill': "DETRDistill, classes and boxes of all queries, paired with the teacher's",
    'masks': "the masks of Mask R-CNN and its kin, pixel by pixel",
    'bckd': "BCKD, class probabilities and boxes where the two sides' probabilities differ",
    'ld': 'LD, the distributions of where the edges of a box are, of two heads such as GFL',
    'quality': "BCKD's class term, cross-entropy with the teacher's probabilities where the two differ",
    'crosskd': "CrossKD, class probabilities and boxes that the teacher's head makes of the student's features",
    'l2': 'squared differences of the feature maps',
    'pkd': 'PKD, correlations of the feature maps',
    'reviewkd': 'ReviewKD, feature maps merged from the top down',
    'cwd': 'CWD, where in the image each channel is active',
    'fgd': 'FGD, feature maps object by object, and the whole image',
    'mgd': "MGD, the teacher's maps made again from masked ones",
}

ALL, FOREGROUND = dict(type='All'), dict(type='Foreground')
SUREST = dict(type='ForegroundPlus', k=1024)
OBJECTS = {'ckd': Recipe(ALL, 1.0), 'kd': Recipe(ALL, 1.0), 'dkd': Recipe(ALL, 1.0), 'dist': Recipe(ALL, 1.0)}

# All of these are ours unless a source stands beside them; README and docs/study.md have those that are measured (not
# dist, ckd_features, boxes, detrdistill, masks, bckd, ld, quality, crosskd, pkd, reviewkd; cwd, fgd and mgd with one
# seed). `ckd_released` is the setting of the released code (arXiv 2404.14109), which has RoI heads and classifiers
# alone; the latter with weights of 10 to 100 by the pair of models, 10 on ImageNet.
RECIPES: dict[str, dict[str, Recipe]] = {
    'ImageAligner': {
        'ckd': Recipe(ALL, 10.0),
        'ckd_released': Recipe(ALL, 10.0),
        'kd': Recipe(ALL, 1.0, dict(loss_kd=dict(temperature=4.0))),
        'dkd': Recipe(ALL, 1.0, dict(loss_dkd=dict(beta=8.0, temperature=4.0))),
        'dist': Recipe(ALL, 1.0),
        'pckd': Recipe(ALL, 1.0),
        'features': Recipe(ALL, 20.0),  # as in PCKD
    },
    'RoIAligner': {
        'ckd': Recipe(FOREGROUND, 1.0),
        'ckd_released': Recipe(ALL, 0.1),
        'kd': Recipe(ALL, 1.0),
        'dkd': Recipe(ALL, 1.0),
        'dist': Recipe(ALL, 1.0),
        'pckd': Recipe(dict(type='ForegroundPlus', k=64), 0.25, dict(loss_features=dict(expansion=2))),
        'features': Recipe(dict(type='ForegroundPlus', k=64), 5.0, dict(loss_alignment=dict(expansion=2))),
        'ckd_features': Recipe(dict(type='ForegroundPlus', k=64), 'balance:0.5',
                               dict(loss_ckd_features=dict(anchors='foreground'))),
        'boxes': Recipe(FOREGROUND, 1.0, dict(loss_boxes=dict(weight_by='better')), shares=True),
        'masks': Recipe(FOREGROUND, 1.0, shares=True),
    },
    'DenseAligner': {
        'ckd': Recipe(FOREGROUND, 1.0, without_labels=dict(type='TeacherTopK', k=256)),
        'kd': Recipe(dict(type='TeacherTopK', k=1024), 1.0),
        # weights as released for BCKD (arXiv 2308.14286), whose rows are all anchors; the number of rows is ours
        'boxes': Recipe(SUREST, 4.0, dict(loss_boxes=dict(weight_by='gap', normalize='positives'))),
        'bckd': Recipe(SUREST, 1.0),
        'ld': Recipe(dict(type='NearObjects'), 'balance:0.25'),  # of each term
        'quality': Recipe(SUREST, 1.0),
        # the layer is that of CrossKD (arXiv 2306.11369), whose rows are all anchors; its weights are not known to us
        'crosskd': Recipe(dict(type='TeacherTopK', k=1024), 'balance:0.5', aligner=dict(through=-1)),
    },
    'NeckAligner': {
        'l2': Recipe(None, 1.0),
        'pkd': Recipe(None, 6.0),  # as mmrazor's configs of PKD (arXiv 2207.02039)
        'reviewkd': Recipe(None, 1.0),  # as released for Faster R-CNN R101 -> R50
        'cwd': Recipe(None, 10.0),  # as mmrazor's configs of CWD (arXiv 2011.13256), for five levels
        # the published weights, of two-stage detectors by default, of RetinaNet and GFL in `one_stage`
        'fgd': Recipe(None, 1.0, one_stage=dict(loss_fgd=dict(alpha=1e-3, beta=5e-4, gamma=5e-4, lambda_=5e-6))),
        'mgd': Recipe(None, 1.0, one_stage=dict(loss_mgd=dict(alpha=2e-5, mask_ratio=0.65))),
    },
    # boxes: the weight that DETR itself gives GIoU (arXiv 2005.12872), which has 5 times an L1 beside it
    'QueryAligner': {**OBJECTS, 'boxes': Recipe(ALL, 2.0, dict(loss_boxes=dict(weight_by='confidence'))),
                     'detrdistill': Recipe(ALL, 1.0, aligner=dict(pair='teacher'))},
    'ObjectAligner': {**OBJECTS, 'boxes': Recipe(ALL, 1.0, dict(loss_boxes=dict(weight_by='better')))},
}

# Fewest shared classes of a method between a pair of heads; a kind that is missing it cannot compare. Kinds are
# `softmax` (both, with background), `sigmoid` (both), `mixed` (one of each) and `images` (both classify images).
SUITS: dict[str, dict[str, int]] = {
    'ckd': dict(softmax=1, sigmoid=2, mixed=2, images=2),
    'ckd_released': dict(softmax=1, images=2),
    'kd': dict(softmax=1, sigmoid=1, mixed=1, images=2),
    'dkd': dict(softmax=1, images=2),
    'dist': dict(softmax=1, images=2),
    'pckd': dict(softmax=1, images=2),
    'features': dict(softmax=1, images=1),
    'ckd_features': dict(softmax=2),
    'boxes': dict(softmax=1, sigmoid=1, mixed=1),
    'detrdistill': dict(softmax=1, sigmoid=1, mixed=1),
    'masks': dict(softmax=1),
    'bckd': dict(sigmoid=1, mixed=1),
    'ld': dict(sigmoid=1),
    'quality': dict(sigmoid=1, mixed=1),
    'crosskd': dict(sigmoid=1),
}


BY_HEAD = frozenset({'quality', 'boxes', 'bckd', 'ld', 'crosskd'})
"""Those of them that not every head of a kind has what they need: labels of its rows, boxes that we can decode, or
layers that can be crossed."""


AUTO = 'auto'
"""The method that is chosen by the heads, from :data:`MEASURED`."""

# By aligner: which method gave most on such rows, and where that stands. What nobody measured is missing.
MEASURED: dict[str, tuple[str, str]] = {
    'ImageAligner': ('ckd', 'it closed 51 % of the gap between two ResNets on handwritten digits, KD 49 %; five seeds '
                            'cannot distinguish it from KD + PCKD, 54 % (docs/classification.md)'),
    'RoIAligner': ('features', 'it closed 70 % of the gap between two Faster R-CNNs, CKD 17 to 27 %, KD 7 % '
                               '(five seeds, docs/study.md)'),
    'DenseAligner': ('kd', 'it closed 40 % of the gap between two RetinaNets, CKD 30 %; CKD with L2, 42 %, cannot be '
                           'distinguished from it (five seeds, docs/study.md)'),
}


def recommended(aligner: str, kind: str, num_classes: int) -> tuple[str, str]:
    """The method that ``auto`` stands for, and why.

    Args:
        aligner: Name of its class.
        kind: Of the pair of heads, as in :data:`SUITS`.
        num_classes: Number of classes that they share.
    """
    fit = methods_for(aligner, kind, num_classes)
    best, why = MEASURED.get(aligner, ('', ''))
    if best in fit:
        return best, why
    return fit[0], ('the first that works between such heads' if best else
                    'the first that works there; nothing has been measured on such rows')


def of_maps(method: str) -> bool:
    """Whether a method compares feature maps, whatever the heads are."""
    return method in RECIPES['NeckAligner']


def methods_for(aligner: str, kind: str, num_classes: int) -> list[str]:
    """Methods that work on the rows of an aligner whatever the heads are, in the order of :data:`METHODS`.

    Args:
        aligner: Name of its class.
        kind: Of the pair of heads, as in :data:`SUITS`.
        num_classes: Number of classes that they share.
    """
    return [method for method in RECIPES.get(aligner, {})
            if method in SUITS and method not in BY_HEAD and num_classes >= SUITS[method].get(kind, num_classes + 1)]


def as_commands(methods: Sequence[str], most: int = 3) -> str:
    """The way out in a refusal: ``'`--method kd` or `--method l2`'``."""
    return ' or '.join(f'`--method {method}`' for method in methods[:most])

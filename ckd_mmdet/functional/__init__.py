"""The formulas, as pure functions of tensors: one value per sample or image, no reduction, no state."""

from .agreement import agreement
from .boxes import bounded_loss, box_loss, overlap
from .category import category_contrast, center_alignment, center_scores, feature_alignment
from .contrast import ckd_loss, other_id, same_id
from .dist import dist_loss
from .dkd import dkd_loss
from .fgd import fgd_terms, object_weights
from .kd import binary_kd_loss, class_log_odds, kd_loss, standardized
from .localization import ld_loss, valuable_region
from .maps import cwd_loss, hcl_loss, l2_loss, pkd_loss
from .masks import mask_kd_loss
from .negatives import little_overlap, told_apart
from .preview import binary_cross_entropy, cross_entropy, preview_threshold, preview_weights, relative_difficulty
from .quality import quality_kd_loss
from .regions import boxes_of_level, inside_objects, near_objects, place_weights
from .relations import relation_loss

__all__ = ['agreement', 'binary_cross_entropy', 'binary_kd_loss', 'bounded_loss', 'box_loss', 'boxes_of_level',
           'category_contrast', 'center_alignment', 'center_scores', 'ckd_loss', 'class_log_odds', 'cross_entropy',
           'cwd_loss', 'dist_loss', 'dkd_loss', 'feature_alignment', 'fgd_terms', 'hcl_loss', 'inside_objects',
           'kd_loss', 'l2_loss', 'ld_loss', 'little_overlap', 'mask_kd_loss', 'near_objects', 'object_weights',
           'other_id', 'overlap', 'pkd_loss', 'place_weights', 'preview_threshold', 'preview_weights',
           'quality_kd_loss', 'relation_loss', 'relative_difficulty', 'same_id', 'standardized', 'told_apart',
           'valuable_region']

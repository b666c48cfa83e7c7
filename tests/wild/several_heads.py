"""A detector in the shape of Co-DETR: a head of queries with its transformer in it, among others over one neck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from mmdet.models import BaseDetector, DINOHead
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class HeadWithTransformer(DINOHead):
    """Takes the neck's maps and the images' meta information, as Co-DETR's does."""

    def __init__(self, *, num_query: int, embed_dims: int, num_pred_layer: int, **settings: object) -> None:
        self.num_query = num_query
        super().__init__(embed_dims=embed_dims, num_pred_layer=num_pred_layer, **settings)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.queries = nn.Embedding(self.num_query, self.embed_dims)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(self.embed_dims, 4, 2 * self.embed_dims, dropout=0.0, batch_first=True)
            for _ in range(self.num_pred_layer))

    def forward(self, mlvl_feats: Sequence[Tensor], img_metas: Sequence[dict]) -> tuple:
        memory = torch.cat([level.flatten(2) for level in mlvl_feats[-2:]], 2).transpose(1, 2)
        hidden = self.queries.weight.expand(len(memory), -1, -1)
        scores, boxes = [], []
        for layer, score, box in zip(self.layers, self.cls_branches, self.reg_branches, strict=True):
            hidden = layer(hidden, memory)
            scores.append(score(hidden))
            boxes.append(box(hidden).sigmoid())
        return torch.stack(scores), torch.stack(boxes), None, None, list(mlvl_feats)


@MODELS.register_module()
class SeveralHeads(BaseDetector):
    """As a teacher alone, of which neither losses nor predictions are asked."""

    def __init__(self, backbone: dict, neck: dict, query_head: dict, rpn_head: dict, roi_head: list[dict],
                 bbox_head: list[dict], with_attn_mask: bool = False, data_preprocessor: dict | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.with_attn_mask = with_attn_mask
        self.backbone, self.neck = MODELS.build(backbone), MODELS.build(neck)
        self.query_head, self.rpn_head = MODELS.build(query_head), MODELS.build(rpn_head)
        self.roi_head, self.bbox_head = (nn.ModuleList(map(MODELS.build, heads)) for heads in (roi_head, bbox_head))

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        return self.neck(self.backbone(batch_inputs))

    def _not_asked(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError('only its maps and its queries are')

    loss = predict = _forward = _not_asked

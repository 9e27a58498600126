"""DF2S2 on WIDER FACE; the same run as ``df2s2/df2s2_R50_FFP.yaml``.

The schedule is that of arXiv 1811.08557, section 3.4.

12,880 images / batch 32 = 402.5 iterations per epoch: 120 epochs = 48,300 iterations, learning rate
x 0.1 after 80 (32,200) and 100 (40,250).
"""

import sys

from df2s2_d2 import (  # isort: skip  (patches Detectron2 before its first import)
    DF2S2,
    FFP,
    DF2S2Head,
)
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from df2s2_d2.matching import FaceAnchorMatcher
from face_d2.data.augmentation import PhotometricDistortion, SquareFaceCrop
from face_d2.data.mapper import FaceDatasetMapper

from .common import dataloader, optimizer, train

model = L(DF2S2)(
    backbone=L(FFP)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
    ),
    in_features=["ffp2", "ffp3", "ffp4", "ffp5", "ffp6", "ffp7"],
    head=L(DF2S2Head)(in_channels="${..backbone.out_channels}", num_anchors=6),
    anchor_generator=L(DefaultAnchorGenerator)(
        # A = 6 per location: 4 x stride times 2^0, 2^(1/3), 2^(2/3); ratios are height / width.
        sizes=[
            [16.0, 20.16, 25.40],
            [32.0, 40.32, 50.80],
            [64.0, 80.63, 101.59],
            [128.0, 161.27, 203.19],
            [256.0, 322.54, 406.37],
            [512.0, 645.08, 812.75],
        ],
        aspect_ratios=[1.0, 1.5],
        strides=[4, 8, 16, 32, 64, 128],
        offset=0.5,
    ),
    matcher=L(FaceAnchorMatcher)(iou_thresholds=[0.4, 0.5], low_quality_min_iou=0.2),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    test_score_thresh=0.02,
    test_nms_thresh=0.5,
    max_detections_per_image=750,
    # Caffe-style ImageNet weights: BGR, 0-255; the first convolution includes the division.
    pixel_mean=[103.530, 116.280, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="BGR",
)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/df2s2_R50_FFP_lazy"
train.max_iter = 48300
train.checkpointer.period = 2415  # 6 epochs
train.eval_period = 4830  # 12 epochs

optimizer.lr = 0.004
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[32200, 40250], num_updates=48300
    ),
    warmup_length=1000 / 48300,
    warmup_factor=0.001,
)

dataloader.train.mapper = L(FaceDatasetMapper)(
    is_train=True,
    augmentations=[
        L(SquareFaceCrop)(size=640, min_scale=0.3, attempts=10, fill="${model.pixel_mean}"),
        L(PhotometricDistortion)(image_format="${...image_format}"),
        L(T.RandomFlip)(),
    ],
    image_format="${model.input_format}",
)
# The short side is 800; the long side is not limited.
dataloader.test.mapper.image_format = "${model.input_format}"
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=800, max_size=sys.maxsize)
]
dataloader.evaluator.evaluators[0].protocol["image size"] = "shorter side 800"

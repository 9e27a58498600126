"""LFFD 25L8S on WIDER FACE, the paper's schedule; the same run as ``lffd/lffd_25L8S.yaml``.

The learning rate 0.1 is for ``loss_scale="batch"``.
"""

from lffd_d2 import LFFD, LFFDNet  # isort: skip  (patches Detectron2 before its first import)
from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

from lffd_d2.head import LFFDHead
from lffd_d2.losses import LFFDLoss
from lffd_d2.scale_sampling import RangeSampler, ScaleSamplingMapper
from lffd_d2.variants import get_variant

from .common import dataloader, optimizer, train

_branches = get_variant("25L8S").branches

model = L(LFFD)(
    backbone=L(LFFDNet)(variant=L(get_variant)(name="25L8S"), init="xavier"),
    head=L(LFFDHead.for_variant)(variant="${..backbone.variant}", init="${..backbone.init}"),
    loss=L(LFFDLoss)(neg_pos_ratio=5, loss_scale="batch", box_norm="positives"),
    reg_norm="scale",
    test_score_thresh=0.11,
    test_nms_thresh=0.4,
    max_detections_per_image=10000,  # no limit after NMS
    pixel_mean=[127.5, 127.5, 127.5],
    pixel_std=[127.5, 127.5, 127.5],
    input_format="BGR",
)

train.output_dir = "./output/lffd_25L8S_lazy"
train.max_iter = 1500000
train.checkpointer.period = 100000
train.eval_period = 100000

optimizer.lr = 0.1
optimizer.weight_decay = 0.0
optimizer.params.weight_decay_bias = 0.0
lr_multiplier = L(MultiStepParamScheduler)(
    values=[1.0, 0.1, 0.01, 0.001, 0.0001],
    milestones=[600000, 1000000, 1200000, 1400000],
    num_updates=1500000,
)

dataloader.train.mapper = L(ScaleSamplingMapper)(
    sampler=L(RangeSampler)(
        face_ranges=[list(branch.face_range) for branch in _branches],
        small_face_rules=3,
        beyond_last_prob=0.1,
    ),
    strides=[branch.rf.stride for branch in _branches],
    size=640,
    negative_ratio=0.1,
    negative_scales=[0.5, 3.5],
    flip="horizontal",
    color_distortion=True,
    image_format="${model.input_format}",
)
dataloader.test.mapper.image_format = "${model.input_format}"
dataloader.evaluator.evaluators[0].protocol[
    "image size"
] = "original, enlarged to a shorter side of 128 if below"

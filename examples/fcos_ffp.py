"""Detectron2's FCOS on faces, over the feature fusion pyramid: levels of stride 8 to 128.

For Detectron2's own ``tools/lazyconfig_train_net.py``; FCOS is in its main branch only.
12,880 images / batch 16 = 805 iterations an epoch: 24 epochs.
"""

from df2s2_d2 import FFP  # isort: skip  (first, as on every Detectron2)
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from face_d2 import get_config_file

train, optimizer, dataloader = LazyConfig.load(
    get_config_file("lazy/common.py"), ("train", "optimizer", "dataloader")
)

model = L(FCOS)(
    backbone=L(FFP)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
            out_features=["res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
    ),
    head_in_features=["ffp3", "ffp4", "ffp5", "ffp6", "ffp7"],
    head=L(FCOSHead)(
        input_shape=[ShapeSpec(channels=256)] * 5,
        num_classes="${..num_classes}",
        conv_dims=[256, 256, 256, 256],
        norm="GN",
    ),
    num_classes=1,
    test_score_thresh=0.02,
    test_nms_thresh=0.6,
    max_detections_per_image=750,
    pixel_mean=[103.530, 116.280, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/fcos_ffp"
train.max_iter = 19320
train.cudnn_benchmark = False  # Detectron2's mapper gives images of all sizes

optimizer.lr = 0.01
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[12880, 17710], num_updates=19320
    ),
    warmup_length=1000 / 19320,
    warmup_factor=0.001,
)

dataloader.train.total_batch_size = 16
# FCOS of Detectron2 0.6 cannot take images without faces.
dataloader.train.dataset.filter_empty = True
dataloader.train.aspect_ratio_grouping = True
dataloader.train.mapper = L(DatasetMapper)(
    is_train=True,
    augmentations=[
        L(T.ResizeShortestEdge)(
            short_edge_length=(640, 672, 704, 736, 768, 800),
            sample_style="choice",
            max_size=1333,
        ),
        L(T.RandomFlip)(),
    ],
    image_format="BGR",
)
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)
]
dataloader.evaluator.evaluators[0].protocol["image size"] = "shorter side 800, longer at most 1333"

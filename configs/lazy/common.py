"""Shared parts of the lazy configs: training settings, optimizer, and loaders of WIDER FACE.

The names are those that Detectron2's ``tools/lazyconfig_train_net.py`` requires.
"""

import torch

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import DatasetEvaluators
from detectron2.solver import get_default_optimizer_params

from face_d2.data.mapper import FaceDatasetMapper
from face_d2.evaluation import FaceCOCOEvaluator, WiderFaceEvaluator

train = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter=0,  # set in the detector's config
    amp=dict(enabled=False),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5000, max_to_keep=100),
    eval_period=5000,
    log_period=20,
    cudnn_benchmark=True,  # training crops have one size
    device="cuda",
)

optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
    lr=0.0,  # set in the detector's config
    momentum=0.9,
    weight_decay=1e-4,
)

dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(
            names="widerface_train",
            filter_empty=False,  # images without faces are background
        ),
        mapper=None,  # set in the detector's config
        total_batch_size=32,
        aspect_ratio_grouping=False,  # every crop is square
        num_workers=8,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="widerface_val", filter_empty=False),
        # The original size.
        mapper=L(FaceDatasetMapper)(is_train=False, augmentations=[], image_format="BGR"),
        num_workers=4,
    ),
    evaluator=L(DatasetEvaluators)(
        evaluators=[
            L(WiderFaceEvaluator)(
                dataset_name="${dataloader.test.dataset.names}",
                output_dir="${train.output_dir}/inference",
                protocol={
                    "image size": "original",
                    "score threshold": "${model.test_score_thresh}",
                    "NMS": "iou ${model.test_nms_thresh}",
                    "detections kept": "${model.max_detections_per_image} per image",
                    "test-time augmentation": "none",
                },
            ),
            L(FaceCOCOEvaluator)(
                dataset_name="${dataloader.test.dataset.names}",
                output_dir="${train.output_dir}/inference",
            ),
        ]
    ),
)

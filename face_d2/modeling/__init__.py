"""What the detectors share: base class, losses of boxes, NMS and multi-scale testing."""

import face_d2.needs_detectron2

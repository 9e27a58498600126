"""Faces out of pictures: the Python API and the command line.

``FaceDetector`` is ``face_d2.FaceDetector``. Only :mod:`face_d2.predictor.torch_backend` imports
torch and Detectron2, and only ``FaceDetector.from_config`` imports that module.
"""

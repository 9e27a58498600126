"""Files of the detectors that ship with the package; see :mod:`face_d2.pretrained`."""

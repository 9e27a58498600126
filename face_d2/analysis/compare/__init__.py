"""Any number of face detectors on the same images, under one protocol, on one page."""

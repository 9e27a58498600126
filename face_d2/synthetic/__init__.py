"""The generated data set: a renderer of faces and of things that look like them.

:mod:`face_d2.synthetic.dataset` is the only module that others import.
"""

"""Files, downloads, text lines and memory: nothing here knows of faces, nor of the rest of this
project.
"""

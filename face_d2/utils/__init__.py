"""Files, downloads, text lines and memory; imports no other part of this project."""

"""Files, downloads, text lines and memory; imports nothing else of this project."""

"""Data sets, their readers, and the mappers that prepare images for a model."""

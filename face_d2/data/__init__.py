"""Data sets, their readers and what is done to an image before a model sees it."""

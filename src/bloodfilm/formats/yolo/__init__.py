"""YOLO: data.yaml, trees of images and labels, one text file an image."""

from bloodfilm.formats.yolo.read import read, recognises
from bloodfilm.formats.yolo.write import write

__all__ = ["read", "recognises", "write"]

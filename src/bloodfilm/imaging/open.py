"""The front door of imaging: find pictures, and open one."""

from bloodfilm.imaging.discovery import find_images
from bloodfilm.imaging.sources.image_file import OpenedImage, open_image, open_with_notes

__all__ = ["OpenedImage", "find_images", "open_image", "open_with_notes"]

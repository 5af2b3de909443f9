"""Former place of `image_size`; import it from `bloodfilm.imaging.headers`."""

from bloodfilm.imaging.headers import image_size

__all__ = ["image_size"]

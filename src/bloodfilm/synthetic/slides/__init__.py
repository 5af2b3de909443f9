"""Synthetic slides: whole films with thick area, monolayer, feathered edge, pen marks and glass."""

from bloodfilm.synthetic.slides.film import SlideFilm, SlideSpec, WhiteCell
from bloodfilm.synthetic.slides.layout import AREAS, Layout
from bloodfilm.synthetic.slides.tiff import LAYOUTS, write_slide

__all__ = ["AREAS", "LAYOUTS", "Layout", "SlideFilm", "SlideSpec", "WhiteCell", "write_slide"]

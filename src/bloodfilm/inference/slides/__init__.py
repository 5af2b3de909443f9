"""Analyse a slide: measure it, find its zone, and analyse the zone tile by tile."""

from bloodfilm.inference.slides.analysis import analyze_slide, analyze_tiles, combined
from bloodfilm.inference.slides.plan import SlidePlan, SlideSelection, plan_slide
from bloodfilm.inference.slides.survey import SlideView, survey_slide
from bloodfilm.inference.slides.tiles import SlideTile, plan_slide_tiles

__all__ = [
    "SlidePlan",
    "SlideSelection",
    "SlideTile",
    "SlideView",
    "analyze_slide",
    "analyze_tiles",
    "combined",
    "plan_slide",
    "plan_slide_tiles",
    "survey_slide",
]

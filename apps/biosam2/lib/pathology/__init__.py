"""Slides: regions of them, and outlines on them, in pixels of level 0."""

"""Whole slides: reading of regions, interactive and automatic segmentation, outlines as polygons."""

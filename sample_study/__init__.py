"""A sample study: synthetic images with exact ground truth."""

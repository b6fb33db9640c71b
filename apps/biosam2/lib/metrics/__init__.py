"""Agreement of masks with ground truth: overlap, surface distances, boundaries, instances."""

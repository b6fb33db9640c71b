"""A study to try the server on: images drawn by code, of which the truth is known to the voxel."""

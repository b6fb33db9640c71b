"""The HTTP routes, one file for each of MONAI Label's route groups."""

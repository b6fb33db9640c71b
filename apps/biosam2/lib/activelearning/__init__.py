"""MONAI Label's strategies and their route: what a client gets that asks for the next image."""

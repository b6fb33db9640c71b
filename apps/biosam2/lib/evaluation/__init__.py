"""Weights measured as the BioSAM-2 paper measures them: images, volumes, videos, simulated prompts."""

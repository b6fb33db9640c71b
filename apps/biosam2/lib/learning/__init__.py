"""Fine-tuning as BioSAM-2 does it: from labelled images to published weights, without MONAI Label."""

"""Fine-tuning on the datastore's labels, as BioSAM-2 does."""

"""BioSAM-2's library: imports run main -> infers -> engine -> prompts -> images -> transforms -> errors."""

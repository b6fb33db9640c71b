"""Which image next: orders of candidates, as pure functions of their scores and embeddings."""

"""Active learning: which image an annotator should label next, and why."""

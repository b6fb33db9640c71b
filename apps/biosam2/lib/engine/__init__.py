"""SAM 2: the only folder that imports it."""

"""Prompts the sample study over HTTP, as a viewer would, and measures the answers against the truth."""

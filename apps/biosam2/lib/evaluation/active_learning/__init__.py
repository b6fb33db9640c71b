"""Simulated annotation: python -m lib.evaluation active-learning."""

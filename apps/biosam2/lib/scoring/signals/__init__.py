"""Signals of model uncertainty, and the score of one image made of them."""

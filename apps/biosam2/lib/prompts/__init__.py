"""Prompts: their types, and what every client sends turned into them."""

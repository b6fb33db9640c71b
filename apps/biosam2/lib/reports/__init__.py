"""Figures, overlays, contact sheets and HTML pages."""

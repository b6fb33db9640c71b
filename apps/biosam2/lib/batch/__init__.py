"""Segments, encodes or scores many images: in the server, in a program of its own, or on a Ray cluster."""

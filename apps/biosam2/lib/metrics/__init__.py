"""How well a mask agrees with the truth: overlap, surface, boundary, instances."""

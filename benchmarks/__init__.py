"""Speed against MONAI Label's own SAM 2 tasks, accuracy against classic interactive methods."""

"""MONAI Label's scoring methods and their routes: how sure the model is, how much people corrected it."""

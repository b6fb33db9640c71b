"""Everything HTTP: one installation into MONAI Label's router, checks and routes."""

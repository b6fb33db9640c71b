"""Image files to arrays, and masks to files."""

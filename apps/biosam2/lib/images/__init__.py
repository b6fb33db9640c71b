"""Files in, arrays out, and masks out to files."""

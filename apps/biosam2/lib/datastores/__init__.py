"""Where images come from and labels go to, beside a folder: a DICOMweb store."""

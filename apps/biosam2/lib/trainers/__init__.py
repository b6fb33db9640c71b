"""MONAI Label's train task: fine-tuning on the labels of the datastore."""

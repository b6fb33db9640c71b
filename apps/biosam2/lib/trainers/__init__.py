"""MONAI Label's train task and its routes: request, datastore, learning."""

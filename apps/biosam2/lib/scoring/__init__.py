"""MONAI Label's scoring methods: model uncertainty, agreement with accepted labels, annotation statistics."""

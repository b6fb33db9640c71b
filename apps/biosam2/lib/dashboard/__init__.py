"""Dashboard: one page about the labels of a datastore and the versions of its model."""

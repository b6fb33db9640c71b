"""How the labelling goes: one page about a datastore and the versions of its model."""

"""The tests, a package: some libraries install a top-level ``tests`` of their own, which would hide these."""

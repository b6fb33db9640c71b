"""What holds for all tests."""

import os

# Two threads of a computation that wait for each other on two busy cores take ten times as long as one: a
# server, its client and a training run at once here. Set before torch is imported, and inherited by servers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

"""How the shipped weights of biosam2_mini are made: data, prompts, training and evaluation."""

import sys
from pathlib import Path

APP = Path(__file__).resolve().parent.parent / "apps" / "biosam2"
if str(APP) not in sys.path:
    sys.path.insert(0, str(APP))

"""What is measured against what, as commands that print a table: `python -m bench.NAME`."""

import os

# As `backend/__init__.py` does for the product: a bench may import PyTorch before it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

"""What is measured against what, as commands that print a table: `python -m bench.NAME`."""

import os

# PyTorch's idle threads otherwise spin for work and take the cores from whatever else runs, also from our own kernels;
# read once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

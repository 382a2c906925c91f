"""`python -m backend …`: the command line."""

import sys

from .service.cli import main
from .service.held_environment import hold_environment

hold_environment()
sys.exit(main())

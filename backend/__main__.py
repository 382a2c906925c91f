"""`python -m backend …`: the command line."""

import sys

from .service.held_environment import hold_environment

# Before the imports that take time: an installation that ends meanwhile would remove the environment.
hold_environment()

from .service.cli import main  # noqa: E402  (the environment is held first)

sys.exit(main())

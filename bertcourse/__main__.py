"""`python -m bertcourse`: the command."""

import sys

from bertcourse.app.cli import main

sys.exit(main())

"""`python -m tombola`: the command `tombola`, where its script is not on the path."""

import sys

from tombola.cli import main

sys.exit(main())

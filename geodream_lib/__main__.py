"""`python -m geodream_lib` is `geodream`."""

import sys

from geodream_lib.cli import main

sys.exit(main())

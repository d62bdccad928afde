"""``python -m triavatar`` is the command ``triavatar``."""

import sys

from triavatar.cli import main

sys.exit(main())

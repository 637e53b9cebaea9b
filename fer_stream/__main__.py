"""``python -m fer_stream`` is ``fer-stream``."""

import sys

from fer_stream.cli.main import main

sys.exit(main())

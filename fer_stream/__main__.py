"""Runs the ``fer-stream`` command for ``python -m fer_stream``."""

import sys

from fer_stream.cli.main import main

sys.exit(main())

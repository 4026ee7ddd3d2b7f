"""Where the command `deq` is."""

import os
import sys

from ._place import COMMAND


def path():
    """The command beside this package; ends the program with one line where there is none."""
    command = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), COMMAND))
    if not os.access(command, os.X_OK):
        sys.exit(f"error: no command at {command}; expected deq built or installed with its command line")
    return command

"""python3 -m deq train ...: the command `deq` of this package."""

import os
import sys

from ._command import path

if __name__ == "__main__":
    command = path()
    os.execv(command, [command, *sys.argv[1:]])

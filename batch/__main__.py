"""`python -m batch` in the pack's folder, or `python path/to/the/pack/batch` from anywhere."""

import sys
from pathlib import Path

HERE = Path(__file__).absolute().parent  # not resolved, because custom_nodes may hold a link to the pack

if __name__ == "__main__":
    if not __package__:  # started as a folder: import its files as modules of the package
        sys.path[:] = [str(HERE.parent), *(one for one in sys.path if Path(one or ".").absolute() != HERE)]
    from batch.command import main

    sys.exit(main())

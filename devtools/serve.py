"""Starts ComfyUI with this pack, to open in a browser; its files stay in `.dev/serve`."""

from __future__ import annotations

import argparse
import sys
import time

from .environment import DEV, SetupError, say
from .server import Server, ServerError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8188)
    port = parser.parse_args().port
    say("Starting ComfyUI ...")
    try:
        with Server(base=DEV / "serve", port=port) as server:
            say(f"Open {server.url} in a browser.")
            say(f"Files: {server.base}   Log: {server.log}   Ctrl-C ends it.")
            while True:
                time.sleep(0.5)
                server.check()
    except KeyboardInterrupt:
        say("\nStopped.")
        return 0
    except (ServerError, SetupError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

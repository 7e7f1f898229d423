"""The web server that the nodes of a one-machine cluster fetch images from, as a program of its own.

    python -m virtfleet_dev.images HOST PORT DIRECTORY

aiohttp's static handler answers Range requests, so imports can be resumed.
"""

import sys
from pathlib import Path

from aiohttp import web


def main() -> None:
    """Serve the directory until stopped."""
    host, port, directory = sys.argv[1:]
    app = web.Application()
    app.router.add_static("/", Path(directory), follow_symlinks=True)
    web.run_app(app, host=host, port=int(port), print=None, handle_signals=True)


if __name__ == "__main__":
    main()

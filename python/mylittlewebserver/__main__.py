"""The command ``mlws``, also as ``python -m mylittlewebserver``."""

from __future__ import annotations

import sys

from mylittlewebserver import _native


def main(argv: list[str] | None = None) -> int:
    """Run the command with these arguments, those of the process by default, and return its exit status."""
    return _native.main(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())

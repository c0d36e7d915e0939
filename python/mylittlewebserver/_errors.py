"""``wsgi.errors`` (PEP 3333, "Input and Error Streams"): a text stream to the server's error log."""

from __future__ import annotations

import io

from mylittlewebserver._native import flush_errors, write_errors


class ErrorStream(io.TextIOBase):
    """Writes complete lines. A thread's line also ends with ``flush()`` and with the request.

    It belongs to the server, so ``close()`` only flushes it. It has no descriptor.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        write_errors(text)
        return len(text)

    def flush(self) -> None:
        flush_errors()

    def close(self) -> None:
        flush_errors()

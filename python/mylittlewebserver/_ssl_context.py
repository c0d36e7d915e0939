"""The hook ``ssl_context`` of a gunicorn config file.

The server does not use OpenSSL. The hook gets a context that records what it is given, and what it sets is applied to
the server. What cannot be applied is an error that names it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, NoReturn

from mylittlewebserver._hooks import Settings

Options = dict[str, str]
"""Values of settings by their names."""


PROTOCOLS = {"h2": "h2", "http/1.1": "h1"}
"""The values of the setting ``http_protocols`` by their names in TLS (ALPN)."""


class SSLContextError(Exception):
    """The hook has used something that the server does not support."""


class RecordingContext(ssl.SSLContext):
    """A context for servers. Arguments are validated by OpenSSL as usual."""

    options_set: Options

    def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        if password is not None:
            _unsupported("load_cert_chain(password=...)", "decrypt the key with: openssl pkey")
        super().load_cert_chain(certfile, keyfile)
        if "certfile" in self.options_set and self.options_set["certfile"] != str(certfile):
            self.options_set["extra_certfile"] = f"{certfile}:{keyfile}" if keyfile else str(certfile)
            return
        self.options_set["certfile"] = str(certfile)
        self.options_set["keyfile"] = str(keyfile or certfile)

    def load_verify_locations(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        if cafile is None or capath is not None or cadata is not None:
            _unsupported("load_verify_locations(capath=..., cadata=...)", "use cafile")
        super().load_verify_locations(cafile)
        self.options_set["ca_certs"] = str(cafile)

    def set_ciphers(self, cipherlist: str, /) -> None:
        super().set_ciphers(cipherlist)
        self.options_set["ciphers"] = cipherlist

    def set_alpn_protocols(self, protocols: Any) -> None:
        protocols = list(protocols)
        if unknown := [name for name in protocols if name not in PROTOCOLS]:
            _unsupported(f"set_alpn_protocols({unknown!r})", f"use {' and '.join(map(repr, PROTOCOLS))}")
        super().set_alpn_protocols(protocols)
        self.options_set["http_protocols"] = ",".join(PROTOCOLS[name] for name in protocols)

    def load_default_certs(self, purpose: Any = None) -> None:
        _unsupported("load_default_certs()", "use load_verify_locations(cafile)")

    def load_dh_params(self, path: Any, /) -> None:
        _unsupported("load_dh_params()", "finite-field Diffie-Hellman is not supported")

    def set_ecdh_curve(self, name: Any, /) -> None:
        _unsupported("set_ecdh_curve()", "the groups are chosen by the server")

    def set_servername_callback(self, callback: Any) -> None:
        _unsupported("set_servername_callback()", "use --extra-certfile")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("keylog_filename", "sni_callback") and value is not None:
            _unsupported(name, "it has no counterpart in the server")
        super().__setattr__(name, value)


def call(hook: Callable[..., object], settings: dict[str, Any]) -> Options:
    """Call the hook as gunicorn does. Return the settings of HTTPS that are in effect afterwards."""
    cfg = Settings(settings)

    def default_ssl_context_factory() -> RecordingContext:
        context = RecordingContext(ssl.PROTOCOL_TLS_SERVER)
        context.options_set = {}
        context.load_cert_chain(cfg.certfile, cfg.keyfile or None)
        context.verify_mode = ssl.VerifyMode(int(cfg.cert_reqs))
        if cfg.ca_certs:
            context.load_verify_locations(cfg.ca_certs)
        if cfg.ciphers:
            context.set_ciphers(cfg.ciphers)
        return context

    context = hook(cfg, default_ssl_context_factory)
    if not isinstance(context, RecordingContext):
        raise SSLContextError(
            f"ssl_context returned {context!r}: expected the context of default_ssl_context_factory()"
        )
    if context.maximum_version not in (ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_3):
        _unsupported("maximum_version", "TLS 1.3 is always accepted")
    options = dict(context.options_set)
    options["cert_reqs"] = str(int(context.verify_mode))
    if context.minimum_version == ssl.TLSVersion.TLSv1_3:
        options["tls_min"] = "1.3"
    return options


def _unsupported(what: str, instead: str) -> NoReturn:
    raise SSLContextError(f"ssl_context: {what} is not supported; {instead}")

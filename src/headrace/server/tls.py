"""The certificate that the server shows, looked at before anything else is started."""

import ssl
from pathlib import Path

from headrace.core.errors import HeadraceError
from headrace.server.options import ServerOptions, flag_of


def check_certificates(options: ServerOptions) -> None:
    """Raise `HeadraceError` if the files of --ssl-certfile and its like cannot be served with."""
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        _check_file(name, getattr(options, name))
    if options.ssl_certfile is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile, password="")
    except (ssl.SSLError, OSError) as error:
        raise HeadraceError(
            f"--ssl-certfile {options.ssl_certfile} and its key cannot be used: {_reason(error)}",
            rule="They must be a certificate and its private key, in PEM, without a password",
            fix="Pass the key's file as --ssl-keyfile, if it is not in the same file",
            param="ssl_certfile",
        ) from None
    _check_authorities(context, options.ssl_ca_certs)


def _check_authorities(context: ssl.SSLContext, path: str | None) -> None:
    try:
        if path is not None:
            context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise HeadraceError(
            f"--ssl-ca-certs {path} cannot be used: {_reason(error)}",
            rule="It must hold certificates in PEM",
            fix="Check that it is the file of who signs your clients' certificates",
            param="ssl_ca_certs",
        ) from None


def _check_file(name: str, path: str | None) -> None:
    if path is None:
        return
    try:
        with Path(path).open("rb"):
            return
    except OSError as error:
        what = f"{flag_of(name)} {path} cannot be read: {error.strerror or error}"
        raise HeadraceError(what, fix="Check the path and who may read it", param=name) from None


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error.strerror or error).lower().replace("_", " ")

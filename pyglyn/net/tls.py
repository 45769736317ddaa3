"""TLS between nodes, as OTP has it with ``-proto_dist inet_tls``. Layer: net.

Source: inet_tls_dist.erl (OTP 25.2) and "Using TLS for Erlang Distribution". The TLS handshake comes first,
on the same port; then the usual handshake with a length of four bytes in front of each message; then the
usual packets. Who dials, and checks certificates, checks that the peer's is for the host part of its name.
The cookie is checked all the same.

Certificates are read again when their files change: what is dialled or accepted afterwards uses the new ones.

Not supported: certificate revocation lists, ``verify_fun``, several certificates on one node, kTLS.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import traceback
from typing import Any, Final

import attrs

from pyglyn import etf
from pyglyn.errors import LocalProtocolError, TermSyntaxError
from pyglyn.escaping import escaped
from pyglyn.etf import Atom, Term

logger = logging.getLogger("pyglyn.net")

VERSIONS: Final = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}


@attrs.frozen(kw_only=True)
class TlsSide:
    """The options of one side, with OTP's names for them in brackets.

    Attributes:
        certificate: PEM file with the node's certificate, and those between it and the CA [certfile].
        key: PEM file with its private key; None if it is in the same file [keyfile].
        password: of the key [password].
        authorities: PEM file with the CAs whose certificates are accepted; None accepts any [cacertfile].
        verify: whether the other side's certificate is checked [verify]; needs ``authorities``.
        certificate_required: whether the side that dials must have one [fail_if_no_peer_cert].
        versions: which are spoken [versions].
    """

    certificate: str | None = None
    key: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    authorities: str | None = None
    verify: bool = False
    certificate_required: bool = False
    versions: tuple[str, ...] = ("tlsv1.2", "tlsv1.3")


@attrs.frozen(kw_only=True)
class TlsSettings:
    """How a node speaks TLS.

    Attributes:
        server: towards nodes that dial this one.
        client: towards nodes that this one dials.
    """

    server: TlsSide
    client: TlsSide

    @staticmethod
    def of(certificate: str, key: str | None = None, authorities: str | None = None) -> TlsSettings:
        """The settings of a cluster with a CA of its own: both sides show certificates, and check them.

        Without ``authorities`` the traffic is encrypted, but nobody checks with whom, as is OTP's default.
        """
        checked = authorities is not None
        side = TlsSide(certificate=certificate, key=key, authorities=authorities, verify=checked)
        return TlsSettings(server=attrs.evolve(side, certificate_required=checked), client=side)


# --- OTP's option file -----------------------------------------------------------------------------


def read_option_file(path: str) -> TlsSettings:
    """Read a file as ``-ssl_dist_optfile`` has it: ``[{server, [{certfile, "…"}, …]}, {client, […]}].``

    Options that are about performance or sessions are passed over.

    Raises:
        LocalProtocolError: there is no such file, it is no such term, or an option would not be obeyed.
    """
    try:
        with open(path, encoding="utf-8") as file:
            term = etf.text.parse(file.read().rstrip().removesuffix("."))
    except OSError as error:
        raise LocalProtocolError(f"the TLS option file {path} cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise LocalProtocolError(
            f"the TLS option file {path} cannot be read: it is no text in UTF-8"
        ) from error
    except TermSyntaxError as error:
        raise LocalProtocolError(f"the TLS option file {path} is no Erlang term: {error}") from error
    sides = _options(path, term)
    for name in sides:
        if name not in ("server", "client"):
            raise LocalProtocolError(f"the TLS option file {path}: {name} is neither server nor client")
    server, client = (_side_of(path, name, sides.get(name, [])) for name in ("server", "client"))
    return TlsSettings(server=server, client=client)


def _options(path: str, term: Term) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in term if isinstance(term, list) else [None]:
        match option:
            case (Atom() as name, value):
                found[name.name] = value
            case _:
                raise LocalProtocolError(f"the TLS option file {path}: expected a list of {{Name, Value}}")
    return found


_PASSED_OVER = frozenset(
    ("secure_renegotiate", "reuse_sessions", "session_tickets", "depth", "hibernate_after", "ktls", "nodelay")
)


def _side_of(path: str, side: str, options: Term) -> TlsSide:
    given: dict[str, Any] = {}
    for name, value in _options(path, options).items():
        match name, value:
            case "certfile" | "keyfile" | "cacertfile" | "password", bytes() | str() | list():
                given[_NAMES[name]] = _string(value)
            case "verify", Atom("verify_peer" | "verify_none" as how):
                given["verify"] = how == "verify_peer"
            case "fail_if_no_peer_cert", bool():
                given["certificate_required"] = value
            case "versions", list() if all(isinstance(v, Atom) and v.name in VERSIONS for v in value):
                given["versions"] = tuple(sorted(version.name for version in value))
            case _ if name in _PASSED_OVER:
                pass
            case _:
                raise LocalProtocolError(f"the TLS option file {path}: {side} option {name} is not supported")
    return TlsSide(**given)


_NAMES = {
    "certfile": "certificate",
    "keyfile": "key",
    "cacertfile": "authorities",
    "password": "password",
}


def _string(value: Any) -> str:
    if isinstance(value, list):
        return "".join(map(chr, value))
    return value.decode() if isinstance(value, bytes) else str(value)


# --- contexts --------------------------------------------------------------------------------------


class Contexts:
    """The contexts of a node's two sides, made again when a file has changed.

    Raises:
        LocalProtocolError: a file cannot be used; the text says which and why.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._seen = self._stamps()
        self._server = _context(settings.server, server=True)
        self._client = _context(settings.client, server=False)

    @property
    def server(self) -> ssl.SSLContext:
        """For a connection that was accepted."""
        self._refresh()
        return self._server

    @property
    def client(self) -> ssl.SSLContext:
        """For a connection that this node makes."""
        self._refresh()
        return self._client

    def _stamps(self) -> list[object]:
        stamps: list[object] = []
        for side in (self._settings.server, self._settings.client):
            for path in (side.certificate, side.key, side.authorities):
                if path is not None:
                    try:
                        stat = os.stat(path)
                        stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
                    except OSError:
                        stamps.append(None)
        return stamps

    def _refresh(self) -> None:
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._server, self._client = (
                _context(self._settings.server, server=True),
                _context(self._settings.client, server=False),
            )
            logger.info("the certificates have changed and were read again")
        except LocalProtocolError as error:
            logger.warning("the certificates have changed, the old ones stay in use: %s", error)


def _context(side: TlsSide, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    versions = [VERSIONS[version] for version in side.versions]
    context.minimum_version, context.maximum_version = min(versions), max(versions)
    if server and side.certificate is None:
        raise LocalProtocolError("TLS needs a certificate for nodes that dial this one (certfile)")
    if side.certificate is not None:
        _load_certificate(context, side)
    if side.verify and side.authorities is None:
        raise LocalProtocolError("checking certificates needs the certificates of the CA (cacertfile)")
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if side.authorities is not None:
        try:
            context.load_verify_locations(side.authorities)
        except FileNotFoundError:
            raise LocalProtocolError(f"there is no file {side.authorities} with CA certificates") from None
        except (OSError, ssl.SSLError) as error:
            raise LocalProtocolError(
                f"{side.authorities} holds no CA certificates: {_reason(error)}"
            ) from error
    if side.verify:
        optional = server and not side.certificate_required
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
        context.check_hostname = not server
    return context


def _load_certificate(context: ssl.SSLContext, side: TlsSide) -> None:
    assert side.certificate is not None
    for path in (side.certificate, side.key):
        if path is not None and not os.path.exists(path):
            raise LocalProtocolError(
                f"there is no file {path} with a {'key' if path == side.key else 'certificate'}"
            )
    try:
        context.load_cert_chain(side.certificate, side.key, lambda: side.password or "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise LocalProtocolError(f"{side.key} is not the key of {side.certificate}") from error
        raise LocalProtocolError(
            f"{side.certificate} and its key cannot be used: {_reason(error)}"
        ) from error
    except OSError as error:
        raise LocalProtocolError(f"{side.certificate} cannot be read: {_reason(error)}") from error


# --- connections -----------------------------------------------------------------------------------


async def start_tls(
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    *,
    timeout_s: float,
    host: str | None,
) -> asyncio.Transport:
    """Do the TLS handshake over a connection, as client if there is a host to check.

    What comes over it afterwards goes to ``protocol``.

    Raises:
        ssl.SSLError, OSError: see `explain_tls`.
    """
    loop = asyncio.get_running_loop()
    try:
        started = await loop.start_tls(
            transport,
            protocol,
            context,
            server_side=host is None,
            server_hostname=host,
            ssl_handshake_timeout=timeout_s,
        )
    except BaseException as error:
        # What was called holds the error, and the error what was called: with it 300 KiB of a connection that
        # anybody may have made, until the collector looks at what is old.
        traceback.clear_frames(error.__traceback__)
        raise
    if started is None:  # it was closed in the same moment
        raise ConnectionAbortedError
    return started


def explain_tls(error: BaseException, peer: str) -> str:
    """Say in a sentence why TLS with a peer came to nothing."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {peer} is not accepted: {_certificate_fault(error)}"
    if isinstance(error, ssl.SSLError):
        for words, sentence in _ALERTS.items():
            if words in str(error.reason or error).upper():
                return sentence.format(peer=peer)
        return f"TLS with {peer} failed: {_reason(error)}"
    if isinstance(error, TimeoutError):
        return f"{peer} did not answer the TLS handshake in time"
    what = "it speaks plain TCP, or wants other certificates"
    return f"{peer} closed the connection during the TLS handshake: {what}"


_ALERTS = {
    "UNKNOWN_CA": "{peer} does not know the CA of this node's certificate",
    "CERTIFICATE_EXPIRED": "{peer} does not accept this node's certificate: it has expired",
    "CERTIFICATE_REQUIRED": "{peer} demands a certificate, and this node shows none",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "{peer} shows no certificate, and this node demands one",
    "CERTIFICATE_UNKNOWN": "{peer} does not accept this node's certificate",
    "BAD_CERTIFICATE": "{peer} does not accept this node's certificate",
    "ALERT_HANDSHAKE_FAILURE": "{peer} shares no TLS version, cipher or certificate with this node",
    "PROTOCOL_VERSION": "{peer} and this node share no version of TLS",
    "UNSUPPORTED_PROTOCOL": "{peer} and this node share no version of TLS",
    "NO_SHARED_CIPHER": "{peer} and this node share no cipher",
    "WRONG_VERSION_NUMBER": "{peer} speaks plain TCP, but this node TLS (-proto_dist inet_tls)",
    "RECORD_LAYER_FAILURE": "{peer} speaks plain TCP, but this node TLS (-proto_dist inet_tls)",
    "HTTP_REQUEST": "{peer} speaks HTTP, but this node TLS (-proto_dist inet_tls)",
    "UNEXPECTED_MESSAGE": "{peer} speaks plain TCP, but this node TLS (-proto_dist inet_tls)",
}


def _certificate_fault(error: ssl.SSLCertVerificationError) -> str:
    fault: str = error.verify_message
    if "issuer" in fault or "self-signed" in fault or "self signed" in fault:
        return f"it comes from an unknown CA ({fault})"
    if "expired" in fault:
        return "it has expired"
    return escaped(fault, 200)


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return escaped(error.strerror if isinstance(error, OSError) and error.strerror else error, 200)

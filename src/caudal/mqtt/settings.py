"""Every limit of the endpoint and the subscriber, with defaults; the composition root fills them in."""

from __future__ import annotations

import ssl

import msgspec


class EndpointSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds, sizes in bytes. Port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 1883
    tls_host: str = "127.0.0.1"
    tls_port: int | None = None  # None: no TLS listener
    reuse_port: bool = True
    backlog: int = 4096
    # Before authentication.
    max_pending: int = 4096  # sockets without a finished CONNECT; more are closed at once
    max_authenticating: int = 64  # at a time; the others wait their turn
    connect_timeout: int = 15  # from the TCP connection to the CONNACK
    # After it.
    max_connections: int = 18_000
    max_sessions: int = 100_000  # with those whose client is away
    max_packet: int = 16 << 20  # so that what is merely too large reaches the dead letters
    max_partial: int = 64 << 20  # of packets that have not come whole, all connections together
    max_held: int = 8 << 20  # read but not taken in because the sink was full; above it nobody is read
    max_inflight: int = 1000  # unsettled messages a connection: the receive maximum of MQTT 5
    max_inflight_bytes: int = 4 << 20
    max_topic_aliases: int = 16
    max_keep_alive: int = 3600  # MQTT 5 clients are told; 0: whatever they ask for
    max_session_expiry: int = 7 * 86_400
    max_subscriptions: int = 64  # a session
    max_client_id: int = 256  # characters
    # Outgoing.
    send_window: int = 32  # unacknowledged QoS 1 a session, or the client's receive maximum if that is less
    queue_messages: int = 100  # waiting, a session
    queue_bytes: int = 1 << 20
    user_timeout: int = 60  # unacknowledged TCP data for that long means that the peer is gone


class SubscriberSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where to subscribe, and as whom."""

    url: str  # mqtt://user:password@host:port or mqtts://
    topics: tuple[str, ...]
    client_id: str  # unique to the worker: see `worker_client_id`
    group: str | None = None  # $share/{group}/…, so that workers split one load
    alone: bool = False  # all that comes is one tenant's, so that it can be made to wait
    qos: int = 1
    version: int = 5  # falls back to 4 when the broker knows no 5
    keep_alive: int = 30
    session_expiry: int = 7 * 86_400
    receive_maximum: int = 8000  # unacknowledged messages the broker may have under way to us
    max_packet: int = 16 << 20
    connect_timeout: float = 10.0
    retry_first: float = 0.5  # the bound of the first pause; each is drawn from 0 to its bound
    retry_max: float = 30.0
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


def server_tls(cert_file: str, key_file: str, *, client_ca: str | None, required: bool) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 for the endpoint; with `client_ca` clients are asked for a certificate of its."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert_file, key_file)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def client_tls(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """A context that verifies the broker's certificate and name, always."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context

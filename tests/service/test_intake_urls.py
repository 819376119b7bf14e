"""A stranger's URL leads to a file or to a refusal, never into our own network, and never for long."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments.errors import InputError
from serve_app.intake import AddressRule, TooLarge, UrlFailed, UrlRefused, fetch_url

HERE = AddressRule(networks=("127.0.0.1/32",))  # the first hop's host and nothing else
LIMIT = 1000
Script = Callable[[str, socket.socket], None]


class Host:
    """A host that says what its script says, and remembers the heads of the requests."""

    def __init__(self, script: Script, address: str, context: ssl.SSLContext | None) -> None:
        self.heads: list[str] = []
        self._script, self._context = script, context
        self._door = socket.create_server((address, 0))
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._door.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        try:
            with self._context.wrap_socket(line, server_side=True) if self._context else line as talk:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += talk.recv(4096) or b"\r\n\r\n"
                self.heads.append(head.decode())
                self._script(head.split(b" ")[1].decode(), talk)
        except OSError:
            pass  # the asker hung up

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()


@contextmanager
def host(script: Script, address: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> Iterator[Host]:
    opened = Host(script, address, context)
    try:
        yield opened
    finally:
        opened.close()


def says(answer: bytes) -> Script:
    return lambda path, line: line.sendall(answer)


def body(content: bytes, *headers: str, length: int | None = None) -> Script:
    told = f"Content-Length: {len(content) if length is None else length}"
    return says("\r\n".join(["HTTP/1.1 200 OK", told, *headers, "", ""]).encode() + content)


def fetch(url: str, folder: Path, allow: AddressRule = HERE, timeout: float = 10) -> bytes:
    return fetch_url(url, folder / "got", limit_bytes=LIMIT, allow=allow, timeout=timeout).read_bytes()


def test_a_file_comes_as_it_is_and_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nobody is there: whoever uses it fails
    with host(body(bytes(range(250)))) as server:
        assert fetch(f"http://127.0.0.1:{server.port}/a%20b.mp4?x=1#part", tmp_path) == bytes(range(250))
    (head,) = server.heads
    assert head.startswith("GET /a%20b.mp4?x=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}\r\n" in head
    assert "accept-encoding: identity" in head.lower() and "authorization" not in head.lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://134744072/",
        "http://0.0.0.0/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[::]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:7f00:1::]/",
        "file:///etc/hostname",
        "ftp://127.0.0.1/a",
        "gopher://127.0.0.1/",
        "data:video/mp4;base64,AAAA",
        "/etc/hostname",
        "http://",
        "http:///path",
        "http://[::1/",
        "http://user:secret@93.184.216.34/",
        "http://93.184.216.34:99999/",
        "http://example.org/a\r\nX-Evil: 1",
        "http://" + "a" * 10000,
    ],
)
def test_addresses_that_are_never_asked(url: str, tmp_path: Path) -> None:
    with pytest.raises(UrlRefused) as refusal:
        fetch_url(url, tmp_path / "got", limit_bytes=LIMIT, allow=AddressRule(), timeout=5)
    assert "secret" not in str(refusal.value)
    assert not (tmp_path / "got").exists()


def test_private_addresses_are_allowed_only_where_asked() -> None:
    inside = ("127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "fd12::1", "100.64.0.1")
    outside = ("8.8.8.8", "93.184.216.34", "2606:2800:220:1::1")
    never = ("169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "::", "fd00:ec2::254", "255.255.255.255")
    plain, private = AddressRule(), AddressRule(private=True)
    assert all(plain.allows(one) and private.allows(one) for one in outside)
    assert all(private.allows(one) and not plain.allows(one) for one in inside)
    assert not any(plain.allows(one) or private.allows(one) for one in never)
    assert AddressRule(networks=("169.254.0.0/16",)).allows("169.254.169.254")


@pytest.mark.parametrize("inner", ["127.0.0.2", "169.254.169.254", "[::ffff:127.0.0.2]", "2130706434"])
def test_a_redirect_into_our_own_network_is_not_followed(inner: str, tmp_path: Path) -> None:
    with host(body(b"the keys"), "127.0.0.2") as safe:
        lead = f"HTTP/1.1 302 Found\r\nLocation: http://{inner}:{safe.port}/\r\nContent-Length: 0\r\n\r\n".encode()
        with host(says(lead)) as server, pytest.raises(UrlRefused):
            fetch(f"http://127.0.0.1:{server.port}/", tmp_path)
        assert len(server.heads) == 1 and safe.heads == []
        allowed = AddressRule(networks=("127.0.0.0/8",))
        assert fetch(f"http://127.0.0.2:{safe.port}/", tmp_path, allowed) == b"the keys"  # it was there to be had


def test_redirects_are_followed_three_times(tmp_path: Path) -> None:
    def script(path: str, line: socket.socket) -> None:
        left = int(path.strip("/"))
        there = f"HTTP/1.1 307 There\r\nLocation: /{left - 1}\r\nContent-Length: 0\r\n\r\n"
        line.sendall(there.encode() if left else b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")

    with host(script) as server:
        assert fetch(f"http://127.0.0.1:{server.port}/3", tmp_path) == b"here"
        with pytest.raises(UrlFailed, match="redirects"):
            fetch(f"http://127.0.0.1:{server.port}/4", tmp_path)


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("file:///etc/hostname", UrlRefused),
        ("http://[::1", UrlFailed),
        ("", UrlFailed),
        ("http://me:secret@127.0.0.1/", UrlRefused),
    ],
)
def test_a_redirect_to_anything_else_is_refused(location: str, error: type[InputError], tmp_path: Path) -> None:
    lead = f"HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    with host(says(lead)) as server, pytest.raises(error):
        fetch(f"http://127.0.0.1:{server.port}/", tmp_path)
    assert len(server.heads) == 1


CHUNKS = b"".join(b"64\r\n" + b"x" * 100 + b"\r\n" for _ in range(30)) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (body(b"", length=10**12), TooLarge),  # said, never sent
        (body(b"x" * (LIMIT + 1)), TooLarge),
        (says(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3000), TooLarge),  # says nothing, sends more
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS), TooLarge),
        (body(b"x" * 3000, length=10), None),  # sends more than it says: what it said counts
        (body(b"x" * 100, length=500), UrlFailed),  # sends less than it says
        (body(b"x" * 20, "Content-Encoding: gzip"), UrlFailed),
        (says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone"), UrlFailed),
        (says(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\npart"), UrlFailed),
        (says(b"220 mail.example.org ESMTP\r\n"), UrlFailed),
        (says(b""), UrlFailed),
        (says(b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"y" * 300_000), UrlFailed),
    ],
)
def test_answers_that_lie_about_their_size_or_are_no_file(script: Script, error: type[InputError] | None, tmp_path: Path) -> None:
    with host(script) as server:
        url = f"http://127.0.0.1:{server.port}/"
        if error is None:
            assert fetch(url, tmp_path) == b"x" * 10
            return
        with pytest.raises(error) as refusal:
            fetch(url, tmp_path)
    assert refusal.value.http_status == (413 if error is TooLarge else 400)
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Drip: "])
def test_a_host_that_drips_is_left_at_the_deadline(start: bytes, tmp_path: Path) -> None:
    stop, hung_up = threading.Event(), threading.Event()

    def drip(path: str, line: socket.socket) -> None:
        line.sendall(start)
        try:
            while not stop.wait(0.05):
                line.sendall(b"x")
        except OSError:
            hung_up.set()

    with host(drip) as server:
        with pytest.raises(UrlFailed):
            fetch(f"http://127.0.0.1:{server.port}/", tmp_path, timeout=0.5)
        assert hung_up.wait(10), "the connection is closed"
        stop.set()
    assert not (tmp_path / "got").exists()


def names(monkeypatch: pytest.MonkeyPatch, table: dict[str, list[list[str]]]) -> list[str]:
    """The resolver knows these names; each look-up takes the next answer. Gives the names that were asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def answer(name: str, port: int, *args: object, **more: object) -> list[object]:
        if name not in table:
            return real(name, port, *args, **more)  # type: ignore[arg-type,return-value]
        asked.append(name)
        found = table[name][min(asked.count(name), len(table[name])) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def test_a_name_is_looked_up_once_and_that_answer_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names(monkeypatch, {"rebind.test": [["127.0.0.1"], ["127.0.0.2"]]})
    with host(body(b"fine")) as server:
        assert fetch(f"http://rebind.test:{server.port}/", tmp_path) == b"fine"
    assert asked == ["rebind.test"]
    assert f"Host: rebind.test:{server.port}\r\n" in server.heads[0]


def test_one_address_inside_among_others_is_enough_to_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"both.test": [["127.0.0.1", "10.0.0.1"]]})
    with host(body(b"fine")) as server, pytest.raises(UrlRefused):
        fetch(f"http://both.test:{server.port}/", tmp_path)
    assert server.heads == []


def test_certificates_are_checked_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from serve_app.intake import pinned

    context, told = certificate(tmp_path / "cert.pem", "media.test"), []
    context.sni_callback = lambda line, name, context: told.append(name)
    names(monkeypatch, {"media.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    with host(body(b"secret"), context=context) as server:
        pinned.tls.cache_clear()
        with pytest.raises(UrlFailed, match="certificate"):
            fetch(f"https://media.test:{server.port}/", tmp_path)  # nobody vouches for it
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        pinned.tls.cache_clear()
        try:
            assert fetch(f"https://media.test:{server.port}/", tmp_path) == b"secret"
            with pytest.raises(UrlFailed, match="certificate"):
                fetch(f"https://other.test:{server.port}/", tmp_path)
            lead = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{server.port}/\r\nContent-Length: 0\r\n\r\n".encode()
            with host(says(lead), context=context) as other, pytest.raises(UrlRefused, match="stays with https"):
                fetch(f"https://media.test:{other.port}/", tmp_path)
        finally:
            pinned.tls.cache_clear()
    assert told == ["media.test", "media.test", "other.test", "media.test"] and len(server.heads) == 1


def certificate(path: Path, name: str) -> ssl.SSLContext:
    """A host's TLS with a certificate of its own making, which is written to `path`."""
    x509 = pytest.importorskip("cryptography.x509", reason="no cryptography here")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    build = x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key()).serial_number(1)
    build = build.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    build = build.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    build = build.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    form = serialization.Encoding.PEM
    own = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(build.sign(key, hashes.SHA256()).public_bytes(form) + own)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context

"""Keys and certificates go to the server, and nowhere else."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from inferq import EngineError, EngineStartError, Settings
from inferq.engines import create_engine
from tests.engines.openai.pairs import STAND_INS, VllmStandIn
from tests.engines.openai.standin import StandIn
from tests.engines.openai.support import ask, engine_for, expected, read, run, settings_for, text
from tests.engines.openai.support import words as words_of

KEY = "sk-hunter2-hunter2-hunter2"


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)


@pytest.mark.parametrize("flavour", STAND_INS)
def test_a_key_is_sent_and_never_shown(flavour: str, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name or None)

    async def check() -> None:
        async with (
            STAND_INS[flavour](key=KEY) as server,
            engine_for(server, api_key=KEY, poll_s=0.05) as engine,
        ):
            assert text(await read(engine.generate(ask()))) == words_of(expected(ask()))
            for answer in (
                f'{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}',
                "x" * 290 + KEY,
            ):
                for status in (400, 401, 413, 500):
                    server.faults.append(
                        f"HTTP/1.1 {status} X\r\ncontent-length: {len(answer)}\r\n\r\n"
                        f"{answer}".encode()
                    )
                    with pytest.raises(Exception, match="server") as caught:
                        await read(engine.generate(ask()))
                    assert KEY not in everything_said(caught.value)
            await server.die()
            with pytest.raises(EngineError) as caught:
                await read(engine.generate(ask()))
            assert KEY not in everything_said(caught.value)
            assert KEY not in repr(engine) + str(engine.__dict__)

    run(check())
    assert caplog.records
    assert KEY not in caplog.text


def test_a_wrong_key_is_not_shown_though_the_server_repeats_it() -> None:
    async def check() -> None:
        async with StandIn(key=KEY) as server:
            wrong = KEY + "-wrong"
            engine = create_engine(settings_for(server, api_key=wrong))
            with pytest.raises(EngineStartError, match="does not accept the API key") as caught:
                await engine.start()
            assert KEY not in everything_said(caught.value)

    run(check())


def test_a_server_that_fails_in_an_answer_cannot_show_the_key() -> None:
    async def check() -> None:
        async with StandIn(key=KEY) as server, engine_for(server, api_key=KEY) as engine:
            server.faults.append(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
                + f'data: {{"error": {{"message": "for {KEY}"}}}}\n\n'.encode()
            )
            with pytest.raises(EngineError, match="for") as caught:
                await read(engine.generate(ask()))
            assert KEY not in everything_said(caught.value)

    run(check())


def test_the_key_of_a_file_is_read_at_start(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")

    async def check() -> None:
        async with StandIn(key=KEY) as server:
            async with engine_for(server, api_key_file=str(path)) as engine:
                assert text(await read(engine.generate(ask()))) == words_of(expected(ask()))
            for content, said in ((None, "cannot be read"), (f"{KEY} {KEY}", "visible ASCII")):
                path.unlink() if content is None else path.write_text(content)
                engine = create_engine(settings_for(server, api_key_file=str(path)))
                with pytest.raises(EngineStartError, match=f"api_key_file.*{said}") as caught:
                    await engine.start()
                assert KEY not in everything_said(caught.value)

    run(check())


def test_settings_do_not_show_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERQ_OPENAI__API_KEY", KEY)
    settings = Settings()
    assert settings.openai.api_key == KEY
    assert KEY not in repr(settings) + str(settings) + repr(settings.openai)
    with pytest.raises(Exception, match=r"openai\.poll_s") as caught:
        Settings(openai={"api_key": KEY, "poll_s": -1})
    assert KEY not in everything_said(caught.value)
    Settings(openai={"api_key": 73313})  # an error would have to show it


def test_the_key_does_not_go_to_metrics_on_another_host() -> None:
    async def check() -> None:
        async with VllmStandIn(key=KEY) as server, VllmStandIn(key=KEY) as other:
            other.metrics = "vllm:num_requests_running 1\n"
            url = other.url.replace("127.0.0.1", "localhost").replace("/v1", "/metrics")
            async with engine_for(server, api_key=KEY, metrics_url=url) as engine:
                # The other host wants the key, so its numbers were not read.
                assert engine.capacity().free_slots == engine.capacity().total_slots

    run(check())


class Certificates(NamedTuple):
    """An authority, and a server's certificate and key from it."""

    authority: str
    certificate: str
    key: str


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make certificates with")
    home = tmp_path_factory.mktemp("tls")
    (home / "names").write_text("subjectAltName=IP:127.0.0.1\n")

    def make(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=home, check=True, capture_output=True, timeout=60)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    make(
        "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2"
    )
    make("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    make(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-out", "server.pem", "-days", "2", "-extfile", "names"),
    )
    return Certificates(*(str(home / name) for name in ("ca.pem", "server.pem", "server.key")))


def tls_of(certificates: Certificates, *, wants_ours: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    if wants_ours:
        context.load_verify_locations(certificates.authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("is_checked", [True, False])
def test_a_server_with_a_certificate_of_our_own_authority(
    certificates: Certificates, *, is_checked: bool
) -> None:
    async def check() -> None:
        async with StandIn(tls=tls_of(certificates)) as server:
            more: dict[str, Any] = (
                {"ca_file": certificates.authority} if is_checked else {"verify": False}
            )
            async with engine_for(server, **more) as engine:
                assert text(await read(engine.generate(ask()))) == words_of(expected(ask()))

    run(check())


def test_a_certificate_of_nobody_we_know_is_refused(certificates: Certificates) -> None:
    async def check() -> None:
        async with StandIn(tls=tls_of(certificates)) as server:
            engine = create_engine(settings_for(server, api_key=KEY, start_timeout_s=0.5))
            with pytest.raises(EngineStartError, match="certificate") as caught:
                await engine.start()
            assert KEY not in everything_said(caught.value)

    run(check())


def test_a_server_may_want_a_certificate_from_us(certificates: Certificates) -> None:
    async def check() -> None:
        async with StandIn(tls=tls_of(certificates, wants_ours=True)) as server:
            ours: dict[str, Any] = {
                "ca_file": certificates.authority,
                "cert_file": certificates.certificate,
                "key_file": certificates.key,
            }
            async with engine_for(server, **ours) as engine:
                assert text(await read(engine.generate(ask()))) == words_of(expected(ask()))

    run(check())


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_a_certificate_that_cannot_be_used_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "no.pem"
    path.write_text(KEY)

    async def check() -> None:
        engine = create_engine(
            Settings(
                engine="openai", openai={"base_url": "https://127.0.0.1:1/v1", name: str(path)}
            )
        )
        with pytest.raises(EngineStartError, match=f"openai.{name}: cannot be used") as caught:
            await engine.start()
        assert KEY not in everything_said(caught.value)

    run(check())

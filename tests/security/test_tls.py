"""Redis behind TLS: everybody who connects checks who answers."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from inferq import Client, SchedulerUnavailable, Settings, SettingsError
from inferq.cluster.address import address_of, kombu_url
from tests.faults.processes import ROOT, Command
from tests.redis_server import RedisServer
from tests.security.tls import TlsServer, cert, key
from tests.support import LONG_S

NODE = "gpu0@test"
CA: dict[str, Any] = {"redis": {"ca_file": cert("ca")}}
CLIENT: dict[str, Any] = {
    "redis": {"ca_file": cert("ca"), "cert_file": cert("client"), "key_file": key("client")}
}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


def settings_for(port: int, host: str = "localhost", **values: Any) -> Settings:
    return Settings(
        scheduler_name="global", scheduler_url=f"rediss://{host}:{port}/0", **{**CA, **values}
    )


def refusal(settings: Settings) -> str:
    """What a producer says that cannot connect."""
    with pytest.raises(SchedulerUnavailable) as caught:
        Client(settings).__enter__()
    return str(caught.value)


def worker(settings: Settings, folder: Path) -> Command:
    """A node with the same way into Redis."""
    env = {
        "INFERQ_SCHEDULER_URL": settings.scheduler_url,
        "INFERQ_ENGINE": "noop",
        **{
            f"INFERQ_REDIS__{name.upper()}": str(value)
            for name, value in settings.redis.model_dump(exclude_unset=True).items()
        },
    }
    arguments = ["-m", "celery", "-A", "inferq", "worker", "-n", NODE, "-l", "INFO"]
    return Command(NODE, arguments, env, folder / "worker.log")


def test_everybody_meets_through_tls_with_client_certificates(
    redis: RedisServer, tmp_path: Path
) -> None:
    with TlsServer(redis.port, client_ca="ca") as tls:
        settings = settings_for(tls.port, **CLIENT)
        node = worker(settings, tmp_path)
        try:
            with Client(settings) as client:
                answer = client.generate(prompt="x", max_tokens=3, timeout=LONG_S)
                assert answer.node == NODE
                # Celery's own way: its broker, its result backend, control and its answers.
                sent = client.app.send_task(
                    "inferq.prefill", kwargs={"prompt": "x", "max_tokens": 2}
                )
                assert sent.get(timeout=LONG_S)["finish_reason"] == "length"
                assert client.app.control.ping([NODE], timeout=LONG_S, limit=1)
            stock_producer(tls.port)
        finally:
            node.term()
            assert node.wait() == 0, node.tail()


def stock_producer(port: int) -> None:
    """Celery alone."""
    tls = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_ca_certs": cert("ca"),
        "ssl_certfile": cert("client"),
        "ssl_keyfile": key("client"),
    }
    url = f"rediss://localhost:{port}/0"
    with Celery("stock", broker=url, backend=url, set_as_current=False) as app:
        app.conf.update(
            broker_use_ssl=tls, redis_backend_use_ssl=tls, task_default_queue="default.prefill"
        )
        result = app.send_task("inferq.prefill", kwargs={"prompt": "x", "max_tokens": 2})
        assert result.get(timeout=LONG_S)["token_ids"] == [0, 1]


def test_a_certificate_of_an_unknown_authority_is_refused(redis: RedisServer) -> None:
    with TlsServer(redis.port) as tls:
        said = refusal(settings_for(tls.port, redis={"ca_file": cert("other-ca")}))
    assert "the server's certificate is refused: unable to get local issuer certificate" in said


def test_rediss_alone_trusts_the_authorities_of_the_system_only(redis: RedisServer) -> None:
    with TlsServer(redis.port) as tls:
        said = refusal(settings_for(tls.port, redis={}))
    assert "the server's certificate is refused" in said


def test_a_certificate_for_another_host_is_refused(redis: RedisServer) -> None:
    with TlsServer(redis.port, "elsewhere") as tls:
        said = refusal(settings_for(tls.port))
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in said


@pytest.mark.parametrize(
    "shown", [{}, {"cert_file": cert("stranger"), "key_file": key("stranger")}]
)
def test_a_server_that_wants_certificates_refuses_strangers(
    redis: RedisServer, shown: dict[str, str]
) -> None:
    with TlsServer(redis.port, client_ca="ca") as tls:
        said = refusal(settings_for(tls.port, redis={"ca_file": cert("ca"), **shown}))
    assert "the server refuses the certificate of redis.cert_file, or wants one" in said


def test_a_server_without_tls_is_said_to_have_none(redis: RedisServer) -> None:
    patience = {"redis_timeout_s": 0.5}
    said = refusal(settings_for(redis.port, cluster=patience))
    assert "no TLS within 0.5 s; does it speak TLS?" in said


@pytest.mark.parametrize("name", ["broker", "backend"])
@pytest.mark.parametrize("wrong", ["authority", "host"])
def test_kombu_and_celery_refuse_the_same(redis: RedisServer, name: str, wrong: str) -> None:
    from inferq.app import create_cluster_app

    server = "elsewhere" if wrong == "host" else "server"
    trusted = "other-ca" if wrong == "authority" else "ca"
    with TlsServer(redis.port, server) as tls:
        app = create_cluster_app(settings_for(tls.port, redis={"ca_file": cert(trusted)}))
        connect = app.connection().connect if name == "broker" else app.backend.client.ping
        with app, pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            connect()


def test_a_worker_ends_at_once_and_says_why(redis: RedisServer, tmp_path: Path) -> None:
    with TlsServer(redis.port, "elsewhere") as tls:
        node = worker(settings_for(tls.port), tmp_path)
        assert node.wait() != 0
    assert "the server's certificate is refused: Hostname mismatch" in node.log()


def test_flower_sees_nodes_and_queues_through_tls(redis: RedisServer) -> None:
    """What Flower connects with: the broker's address and Celery's settings."""
    code = """
import asyncio
from flower.utils.broker import Broker
from inferq.monitoring.flower.celery import app
broker = Broker(
    app.connection().as_uri(include_password=True),
    broker_options=app.conf.broker_transport_options,
    broker_use_ssl=app.conf.broker_use_ssl,
)
print(asyncio.run(broker.queues(["default.prefill"])))
"""
    with TlsServer(redis.port, client_ca="ca") as tls:
        env = {
            "PYTHONPATH": str(ROOT),
            "INFERQ_SCHEDULER_URL": f"rediss://localhost:{tls.port}/0",
            "INFERQ_REDIS__CA_FILE": cert("ca"),
            "INFERQ_REDIS__CERT_FILE": cert("client"),
            "INFERQ_REDIS__KEY_FILE": key("client"),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            env=env,
            capture_output=True,
            text=True,
            timeout=LONG_S,
        )
    assert "'name': 'default.prefill', 'messages': 0" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"redis": {"ca_file": "/none.pem"}}, "redis.ca_file='/none.pem': .* cannot be read"),
        ({"redis": {"cert_file": cert("client")}}, "redis.* cert_file and key_file go together"),
        ({"scheduler_url": "rediss://h?ssl_cert_reqs=maybe"}, "ssl_cert_reqs: allowed are"),
        ({"scheduler_url": "redis://h?ssl_ca_certs=x"}, "ssl_ options go with rediss:// only"),
        ({"scheduler_url": "rediss://h?socket_timeout=1"}, "an option is unknown; allowed are db"),
        ({"scheduler_url": "redis://h:99999"}, "its port is no number up to 65535"),
        ({"scheduler_url": "redis://:p@/0"}, "names no host"),
        ({"scheduler_url": "redis://:a#b@h/0"}, "special character in it is not percent"),
    ],
)
def test_a_wrong_address_is_said_at_start(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        Settings(**values)
    assert "a#b" not in str(caught.value)


def test_certificates_without_tls_are_no_protection() -> None:
    with pytest.raises(SettingsError, match=r"only with redis\.tls or rediss://"):
        address_of(Settings(redis={"ca_file": cert("ca")}))


def test_tls_by_parts_and_options_in_the_url() -> None:
    by_parts = Settings(scheduler_host="h", redis={"tls": True, "ca_file": cert("ca")})
    assert kombu_url(by_parts) == "rediss://h:6379/0"
    assert address_of(by_parts).tls == {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": cert("ca"),
    }
    by_url = Settings(scheduler_url=f"rediss://h?ssl_ca_certs={cert('ca')}&db=2")
    assert kombu_url(by_url) == "rediss://h:6379/2"
    assert address_of(by_url).tls["ssl_ca_certs"] == cert("ca")
    unchecked = Settings(scheduler_url="rediss://h?ssl_cert_reqs=none")
    assert address_of(unchecked).tls == {
        "ssl_cert_reqs": ssl.CERT_NONE,
        "ssl_check_hostname": False,
    }

"""What carries requests: heads and bodies that should not be, and what runs that share its connections keep apart."""

from typing import TYPE_CHECKING

import pytest

from fbench.engine.errors import UsageError
from fbench.engine.models.endpoint import open_endpoint
from fbench.engine.models.names import ModelSpec
from fbench.engine.seams import AttemptFailed

if TYPE_CHECKING:
    from tests.loopback.server import Behaviour, Exchange, LoopbackServer

BODY = b'{"model":"m"}'


def wire(data: bytes) -> "Behaviour":
    """These bytes and the end of the connection."""

    async def behave(exchange: "Exchange") -> None:
        exchange.writer.write(data)
        await exchange.writer.drain()
        exchange.keep_open = False

    return behave


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_cookie_of_one_runs_answer_is_sent_by_nobody(loopback: "LoopbackServer", host: str) -> None:
    loopback.always(loopback.json({}, headers={"set-cookie": "session=of-one-run; Path=/"}))
    url = loopback.url.replace("127.0.0.1", host)
    async with (
        open_endpoint(ModelSpec("openai/m", url, "sk-x")) as one,
        open_endpoint(ModelSpec("openai/n", url, "sk-x")) as other,
    ):
        for endpoint in (one, other, one):
            await endpoint.post("chat/completions", BODY)
    assert [request.headers.get("cookie") for request in loopback.requests] == [None] * 3


async def test_who_leaves_takes_the_connections_from_nobody(loopback: "LoopbackServer") -> None:
    spec = ModelSpec("openai/m", loopback.url, "sk-x")
    async with open_endpoint(spec) as one:
        await one.post("chat/completions", BODY)
        async with open_endpoint(spec) as other:
            await other.post("chat/completions", BODY)
        await one.post("chat/completions", BODY)
        assert loopback.open_connections == 1
    assert loopback.wait_for(lambda: loopback.open_connections == 0)
    async with open_endpoint(spec) as again:
        assert (await again.post("chat/completions", BODY)).status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head("retry-after: 7", "content-length: 100", status="429 No") + b"half", 429),
        (head("retry-after: 7", "transfer-encoding: chunked", status="429 No") + b"ff\r\nhalf", 429),
        (head("retry-after: 7", "content-encoding: gzip", "content-length: 4", status="401 No") + b"half", 401),
    ],
    ids=["cut", "cut chunk", "no gzip"],
)
async def test_a_refusal_whose_words_break_off_keeps_its_status(
    loopback: "LoopbackServer", data: bytes, status: int
) -> None:
    loopback.plan(wire(data))
    async with open_endpoint(ModelSpec("openai/m", loopback.url, "sk-x")) as endpoint:
        answer = await endpoint.post("chat/completions", BODY)
    assert (answer.status, answer.headers["retry-after"]) == (status, "7")
    assert b"half".startswith(answer.body)


async def test_a_reason_that_is_no_text_is_a_failed_attempt_worth_another(loopback: "LoopbackServer") -> None:
    loopback.plan(wire(head("content-length: 2", status="200 \xff\xfe") + b"{}"))
    async with open_endpoint(ModelSpec("openai/m", loopback.url, "sk-x")) as endpoint:
        with pytest.raises(AttemptFailed, match="the answer cannot be read") as failed:
            await endpoint.post("chat/completions", BODY)
    assert failed.value.retryable
    assert len(loopback.requests) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 200 OK\r\n\r\n{}",
        head("connection: close") + b"{}",
        head(status="100 Continue") + head("content-length: 2") + b"{}",
        head("link: </a>", status="103 Early Hints") + head("content-length: 2") + b"{}",
    ],
    ids=["HTTP/1.0", "until the end", "100", "103"],
)
async def test_old_and_chatty_servers_are_understood(loopback: "LoopbackServer", data: bytes) -> None:
    loopback.plan(wire(data))
    async with open_endpoint(ModelSpec("openai/m", loopback.url, "sk-x")) as endpoint:
        answer = await endpoint.post("chat/completions", BODY)
    assert (answer.status, answer.body) == (200, b"{}")


@pytest.mark.parametrize(
    "data",
    [
        head("transfer-encoding: chunked") + b"ff\r\n{}",
        head("transfer-encoding: chunked") + b"2\r\n{}\r\n",
        head("content-length: 9") + b"{}",
        head("content-encoding: gzip", "content-length: 90") + b"\x1f\x8b\x08",
        head("x-long: " + "a" * 100_000, "content-length: 2") + b"{}",
        head(*["x: a"] * 20_000, "content-length: 2") + b"{}",
        head("no header", "content-length: 2") + b"{}",
        head("content-length: -2") + b"{}",
        b"HTTP/1.1 200 OK\r\nconte",
        b"",
    ],
    ids=["chunk", "no last chunk", "length", "gzip", "long", "many", "no header", "negative", "half a head", "nothing"],
)
async def test_what_is_no_whole_answer_is_one_failed_attempt_worth_another(
    loopback: "LoopbackServer", data: bytes
) -> None:
    loopback.plan(wire(data))
    async with open_endpoint(ModelSpec("openai/m", loopback.url, "sk-x", attempt_timeout_s=20)) as endpoint:
        with pytest.raises(AttemptFailed) as failed:
            await endpoint.post("chat/completions", BODY)
        assert failed.value.retryable
        assert len(loopback.requests) == 1
        assert (await endpoint.post("chat/completions", BODY)).status == 200


async def test_a_socks_proxy_of_the_environment_is_refused_where_it_would_be_used(
    loopback: "LoopbackServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(UsageError, match="socks5 proxy"):
        async with open_endpoint(ModelSpec("openai/m", "http://model.invalid/v1", "sk-x")):
            pass
    async with open_endpoint(ModelSpec("openai/m", loopback.url, "sk-x")) as endpoint:
        assert (await endpoint.post("chat/completions", BODY)).status == 200
    monkeypatch.setenv("ALL_PROXY", loopback.url.removesuffix("/v1"))
    async with open_endpoint(ModelSpec("openai/m", "http://model.invalid/v1", "sk-x")) as endpoint:
        assert (await endpoint.post("chat/completions", BODY)).status == 200
    assert [request.path for request in loopback.requests][-1] == "http://model.invalid/v1/chat/completions"

"""The official anthropic SDK against the gateway: what its users do, and each error class that they catch."""

import asyncio

import anthropic
import pytest

from conftest import ANTHROPIC_KEYS

MODEL = "claude-haiku-4-5"
ASK = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "[[sim tokens=12]] say something about the sea"}]}
TOOLS = [{"name": "get_weather", "description": "weather of a city",
          "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]


@pytest.fixture
def client(gateway):
    return anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0)


def test_plain_answer(client):
    answer = client.messages.create(**ASK)
    assert answer.type == "message" and answer.content[0].text and answer.usage.output_tokens > 0
    assert answer._request_id


def test_stream(client):
    with client.messages.stream(**ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text and final.stop_reason == "end_turn" and final.usage.output_tokens > 0


def test_the_documented_header_works_too(gateway):
    client = anthropic.Anthropic(base_url=gateway.url, api_key=None, auth_token=None, max_retries=0,
                                 default_headers={"x-api-key": gateway.key, "authorization": anthropic.Omit()})
    assert client.messages.create(**ASK).content[0].text


def test_async_and_async_stream(gateway):
    async def talk():
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
            plain = await client.messages.create(**ASK)
            async with client.messages.stream(**ASK) as stream:
                return plain.content[0].text, (await stream.get_final_message()).content[0].text
    plain, text = asyncio.run(talk())
    assert plain == text


def test_tools_plain_and_streamed(client):
    ask = {**ASK, "tools": TOOLS, "tool_choice": {"type": "any"}}
    answer = client.messages.create(**ask)
    call = next(block for block in answer.content if block.type == "tool_use")
    assert call.name == "get_weather" and answer.stop_reason == "tool_use"
    with client.messages.stream(**ask) as stream:
        streamed = next(block for block in stream.get_final_message().content if block.type == "tool_use")
    assert streamed.input == call.input


def test_models(client):
    ids = [model.id for model in client.models.list()]
    assert MODEL in ids and client.models.retrieve(MODEL).type == "model"


@pytest.mark.parametrize("status, error", [
    (400, anthropic.BadRequestError), (404, anthropic.NotFoundError), (413, anthropic.APIStatusError)])
def test_other_4xx_come_back_unchanged(client, gateway, status, error):
    gateway.script(ANTHROPIC_KEYS, {"status": status})
    with pytest.raises(error) as caught:
        client.messages.create(**ASK)
    assert caught.value.status_code == status and caught.value.body["type"] == "error"


@pytest.mark.parametrize("status", [500, 529, 401, 403, 429])
def test_a_failing_upstream_key_is_not_seen(client, gateway, status):
    gateway.script(ANTHROPIC_KEYS[:1], *[{"status": status}] * 4)
    for _ in range(2):
        assert client.messages.create(**ASK).content[0].text
        with client.messages.stream(**ASK) as stream:
            assert stream.get_final_message().content[0].text


def test_429_on_all_keys_is_the_last_429(client, gateway):
    gateway.script(ANTHROPIC_KEYS, {"status": 429, "headers": {"retry-after": "3"}})
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(**ASK)
    assert caught.value.response.headers["retry-after"] == "3"


def test_overload_of_all_keys_and_of_the_first_event(client, gateway):
    gateway.script(ANTHROPIC_KEYS, {"status": 529})
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(**ASK)
    gateway.script(ANTHROPIC_KEYS[:1], {"first_event_error": True})
    for _ in range(2):
        with client.messages.stream(**ASK) as stream:
            assert stream.get_final_message().stop_reason == "end_turn"


def test_a_stream_cut_by_the_provider_ends_with_an_error(client, gateway):
    gateway.script(ANTHROPIC_KEYS, {"cut_at_byte": 900})
    ask = {**ASK, "max_tokens": 300, "messages": [{"role": "user", "content": "[[sim tokens=200]] a long answer"}]}
    with pytest.raises(anthropic.APIError):
        with client.messages.stream(**ask) as stream:
            stream.get_final_message()


def test_a_wrong_key(gateway):
    client = anthropic.Anthropic(base_url=gateway.url, api_key="sk-wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(**ASK)
    assert caught.value.body["error"]["type"] == "authentication_error"


def test_usage_is_what_the_sdk_saw(gateway):
    key_id, secret = gateway.new_key()
    client = anthropic.Anthropic(base_url=gateway.url, api_key=secret, max_retries=0)
    seen = client.messages.create(**ASK).usage
    with client.messages.stream(**ASK) as stream:
        stream.get_final_message()
    row = gateway.usage(key_id, 2)
    assert row["reported"] == 2 and row["unpriced"] == 0 and row["cost_nano_usd"] > 0
    assert row["tokens"]["output"] == 2 * seen.output_tokens and row["tokens"]["input"] == 2 * seen.input_tokens


def test_headers_of_the_dialect_pass(client, gateway):
    client.messages.create(**ASK, extra_headers={"anthropic-beta": "some-beta-2026-01-01"})
    headers = {k.lower(): v for k, v in gateway.sim_call("/_sim/requests")["requests"][-1]["headers"]}
    assert headers["anthropic-beta"] == "some-beta-2026-01-01" and headers["anthropic-version"]
    assert headers["x-api-key"] in ANTHROPIC_KEYS and "authorization" not in headers


def test_counting_tokens_is_free_and_limited_like_all_else(gateway):
    key_id, secret = gateway.new_key()
    client = anthropic.Anthropic(base_url=gateway.url, api_key=secret, max_retries=0)
    counted = client.messages.count_tokens(model=MODEL, messages=ASK["messages"]).input_tokens
    assert counted == client.messages.create(**ASK).usage.input_tokens
    row = gateway.usage(key_id, 2)
    assert row["reported"] == 2 and row["tokens"]["input"] == counted, "the message alone is charged"
    gateway.xai("account", "create", "sdk-no-counting", "--allow-endpoint", "messages")
    _, secret = gateway.new_key("root/sdk-no-counting")
    client = anthropic.Anthropic(base_url=gateway.url, api_key=secret, max_retries=0)
    assert client.messages.create(**ASK).content[0].text
    with pytest.raises(anthropic.PermissionDeniedError):
        client.messages.count_tokens(model=MODEL, messages=ASK["messages"])

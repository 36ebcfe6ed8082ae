"""The official openai SDK against the gateway: what its users do, and each error class that they catch."""

import asyncio

import openai
import pytest

from conftest import OPENAI_KEYS

ASK = [{"role": "user", "content": "[[sim tokens=12]] say something about the sea"}]
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "weather of a city",
                                            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]


@pytest.fixture
def client(gateway):
    return openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0)


def test_plain_answer(client):
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


def test_stream_without_usage_hides_what_the_gateway_asked_for(client):
    chunks = list(client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True))
    assert all(len(chunk.choices) == 1 for chunk in chunks), "an extra chunk reached a client that did not ask"
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_stream_with_usage_shows_it_once(client):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True, stream_options=options))
    assert [bool(c.usage) for c in chunks].count(True) == 1 and chunks[-1].usage and chunks[-1].choices == []


def test_async_and_async_stream(gateway):
    async def talk():
        async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0) as client:
            plain, stream = await asyncio.gather(
                client.chat.completions.create(model="gpt-4o-mini", messages=ASK),
                client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True))
            text = "".join([c.choices[0].delta.content or "" async for c in stream])
            return plain.choices[0].message.content, text
    plain, text = asyncio.run(talk())
    assert plain == text


def test_tools_plain_and_streamed(client):
    answer = client.chat.completions.create(model="gpt-4o", messages=ASK, tools=TOOLS, tool_choice="required")
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather" and answer.choices[0].finish_reason == "tool_calls"
    chunks = client.chat.completions.create(model="gpt-4o", messages=ASK, tools=TOOLS, tool_choice="required", stream=True)
    arguments = "".join(t.function.arguments or "" for c in chunks for t in (c.choices[0].delta.tool_calls or []))
    assert arguments == call.function.arguments


def test_images_pass_through_untouched(client, gateway):
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": PIXEL}}]}]
    assert client.chat.completions.create(model="gpt-4o", messages=messages).choices[0].message.content


def test_embeddings(client):
    answer = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) > 3 and answer.usage.prompt_tokens > 0


def test_models(client):
    ids = [model.id for model in client.models.list()]
    assert "gpt-4o-mini" in ids
    assert client.models.retrieve("gpt-4o-mini").id == "gpt-4o-mini"


@pytest.mark.parametrize("status, error", [
    (400, openai.BadRequestError), (404, openai.NotFoundError), (409, openai.ConflictError), (422, openai.UnprocessableEntityError)])
def test_other_4xx_come_back_unchanged(client, gateway, status, error):
    gateway.script(OPENAI_KEYS, {"status": status})
    with pytest.raises(error) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    assert caught.value.status_code == status and caught.value.body["message"]
    assert gateway.sim_call("/_sim/requests")["count"] == 1, "a 4xx must not be tried again"


@pytest.mark.parametrize("status", [500, 502, 503, 401, 402, 403, 429])
def test_a_failing_upstream_key_is_not_seen(gateway, status):
    """Every key but one fails: the request still succeeds, whichever key's turn it is."""
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0)
    gateway.script(OPENAI_KEYS[:2], *[{"status": status}] * 4)
    for stream in (False, True):
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=stream)
        assert (list(answer) if stream else answer.choices)


def test_429_on_all_keys_is_the_last_429_with_its_headers(client, gateway):
    gateway.script(OPENAI_KEYS, {"status": 429, "headers": {"retry-after": "7"}})
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    assert caught.value.response.headers["retry-after"] == "7"


def test_5xx_on_all_keys_is_an_error_of_the_gateway(client, gateway):
    gateway.script(OPENAI_KEYS, {"status": 500})
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    assert caught.value.status_code == 502 and caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_upstream_key_is_named_and_never_blamed_on_the_caller(client, gateway, status):
    gateway.script(OPENAI_KEYS, {"status": status})
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    ids = [key["id"] for key in gateway.xai("upstream-key", "list")["upstream_keys"]]
    assert caught.value.status_code == 502 and any(i in caught.value.message for i in ids)


def test_an_error_as_first_event_is_tried_again(client, gateway):
    gateway.script(OPENAI_KEYS[:2], *[{"first_event_error": True}] * 2)
    chunks = list(client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_cut_by_the_provider_ends_with_an_error(client, gateway):
    gateway.script(OPENAI_KEYS, {"cut_at_byte": 900})
    ask = [{"role": "user", "content": "[[sim tokens=200]] a long answer"}]
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="gpt-4o-mini", messages=ask, stream=True))


@pytest.mark.parametrize("key", ["sk-wrong", "sk-pxai-" + "A" * 50])
def test_a_wrong_key(gateway, key):
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=key, max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    assert caught.value.code == "invalid_api_key" and key not in str(caught.value)


def test_a_key_that_is_disabled_while_in_use(gateway):
    key_id, secret = gateway.new_key()
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=secret, max_retries=0)
    stream = client.chat.completions.create(
        model="gpt-4o-mini", stream=True, messages=[{"role": "user", "content": "[[sim tokens=40 delay_ms=20]] slowly"}])
    next(iter(stream))
    gateway.xai("key", "disable", key_id)
    assert list(stream)[-1].choices[0].finish_reason == "stop", "what has begun ends"
    refused_within(client, openai.AuthenticationError)
    gateway.xai("key", "enable", key_id)
    assert succeeds_within(client)


def test_a_suspended_ancestor_and_a_model_that_is_not_allowed(gateway):
    gateway.xai("account", "create", "sdk-team", "--allow-model", "gpt-4o*")
    gateway.xai("account", "create", "app", "--parent", "root/sdk-team")
    _, secret = gateway.new_key("root/sdk-team/app")
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=secret, max_retries=0)
    assert succeeds_within(client)
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="o3-mini", messages=ASK)
    assert all(model.id.startswith("gpt-4o") for model in client.models.list())
    gateway.xai("account", "suspend", "root/sdk-team")
    refused_within(client, openai.PermissionDeniedError)
    gateway.xai("account", "resume", "root/sdk-team")
    assert succeeds_within(client)


def test_usage_is_what_the_sdk_saw(gateway):
    key_id, secret = gateway.new_key()
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=secret, max_retries=0)
    seen = client.chat.completions.create(model="gpt-4o-mini", messages=ASK).usage
    list(client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True))
    row = gateway.usage(key_id, 2)
    assert row["reported"] == 2 and row["unknown"] == 0 and row["unpriced"] == 0
    assert row["tokens"]["output"] == 2 * seen.completion_tokens
    # gpt-4o-mini: 0.15 and 0.60 USD per million tokens; the toy provider reports no cached tokens for a first request.
    assert row["cost_nano_usd"] > 0


def test_a_model_without_a_price_is_served_and_listed(gateway):
    key_id, secret = gateway.new_key()
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=secret, max_retries=0)
    client.chat.completions.create(model="gpt-without-a-price", messages=ASK)
    row = gateway.usage(key_id, 1)
    assert row["unpriced"] == 1 and row["cost_nano_usd"] == 0
    assert any(r["model"] == "gpt-without-a-price" for r in gateway.xai("usage", "--unpriced", "--by", "model")["rows"])


def test_no_client_credential_reaches_the_provider(client, gateway):
    client.chat.completions.create(model="gpt-4o-mini", messages=ASK, extra_headers={
        "OpenAI-Organization": "org-of-the-client", "Cookie": "session=1", "X-Forwarded-For": "10.0.0.1"})
    headers = {k.lower(): v for k, v in gateway.sim_call("/_sim/requests")["requests"][-1]["headers"]}
    assert headers["authorization"].removeprefix("Bearer ") in OPENAI_KEYS
    assert not {"openai-organization", "cookie", "x-forwarded-for", "x-api-key"} & set(headers)
    assert gateway.key not in str(headers)


def test_hanging_up_in_mid_stream_is_one_event(gateway):
    key_id, secret = gateway.new_key()
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key=secret, max_retries=0) as client:
        ask = [{"role": "user", "content": "[[sim tokens=400 delay_ms=50]] slowly"}]
        stream = client.chat.completions.create(model="gpt-4o-mini", messages=ask, stream=True)
        next(iter(stream))
        stream.close()
    row = gateway.usage(key_id, 1)
    assert (row["attempts"], row["unknown"], row["reported"]) == (1, 1, 0)
    assert row["estimated_tokens"]["input"] > 0


def refused_within(client, error, tries=100):
    """A change reaches the node within a second; until then requests may still pass."""
    for _ in range(tries):
        try:
            client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
        except error:
            return
    raise AssertionError("never refused")


def succeeds_within(client, tries=100):
    for _ in range(tries):
        try:
            return client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
        except openai.APIStatusError as error:
            last = error
    raise AssertionError(f"never succeeded: {last}")


def test_responses_plain_and_streamed(gateway):
    key_id, secret = gateway.new_key()
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=secret, max_retries=0)
    plain = client.responses.create(model="gpt-4o-mini", input="[[sim tokens=12]] say something about the sea")
    assert plain.status == "completed" and plain.output_text
    events = list(client.responses.create(model="gpt-4o-mini", input="[[sim tokens=12]] say something about the sea", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert events[-1].response.output_text == plain.output_text
    with client.responses.stream(model="gpt-4o-mini", input="[[sim tokens=9]] the sea") as stream:
        final = stream.get_final_response()
    row = gateway.usage(key_id, 3)
    usages = [plain.usage, events[-1].response.usage, final.usage]
    assert row["reported"] == 3 and row["tokens"]["output"] == sum(u.output_tokens for u in usages)
    assert row["tokens"]["input"] == sum(u.input_tokens for u in usages) and row["cost_nano_usd"] > 0


def test_responses_with_tools_limits_and_what_came_before(client):
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
    call = client.responses.create(model="gpt-4o", input="weather?", tools=[tool], tool_choice="required").output[0]
    assert call.type == "function_call" and call.name == "get_weather"
    short = client.responses.create(model="gpt-4o-mini", input="[[sim tokens=30]] go", max_output_tokens=16)
    assert short.status == "incomplete" and short.incomplete_details.reason == "max_output_tokens"
    for _ in range(4):
        assert client.responses.create(model="gpt-4o-mini", input="go on", previous_response_id=short.id).status == "completed"


def test_responses_that_fail(client, gateway):
    gateway.script(OPENAI_KEYS[:2], *[{"first_event_error": True}] * 2)
    events = list(client.responses.create(model="gpt-4o-mini", input="hi", stream=True))
    assert events[-1].type == "response.completed", "an error as first event is tried again"
    gateway.sim_call("/_sim/reset", {})
    gateway.script(OPENAI_KEYS, {"cut_at_byte": 2500})
    with pytest.raises(openai.APIError):
        list(client.responses.create(model="gpt-4o-mini", input="[[sim tokens=200]] long", stream=True))
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="gpt-4o-mini", input="hi", background=True)
    for call in (lambda: client.responses.retrieve("resp_1"), lambda: client.responses.cancel("resp_1"), lambda: client.responses.delete("resp_1")):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert "POST /v1/responses" in caught.value.message

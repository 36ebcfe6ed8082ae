"""The official SDKs through three gateways, one behind the other: what a client of the first one sees is what the provider said."""

import pathlib, tempfile

import anthropic, openai, pytest

from conftest import ANTHROPIC_KEYS, OPENAI_KEYS, Gateway

ASK = [{"role": "user", "content": "[[sim tokens=12]] say something about the sea"}]
MODEL = "claude-haiku-4-5"


@pytest.fixture(scope="module")
def top(gateway):
    """A gateway whose parent is a gateway whose parent is the one of all tests."""
    with tempfile.TemporaryDirectory(prefix="xai-sdk-") as work:
        parent, started = gateway, []
        try:
            for level in ("middle", "top"):
                parent.xai("account", "create", level, "--gateway")
                _, key = parent.new_key(f"root/{level}")
                child = Gateway(pathlib.Path(work) / level)
                started.append(child)
                parent = child.start_below(parent, key)
            yield parent
        finally:
            for one in reversed(started):
                one.stop()


def test_every_dialect_through_three_levels(gateway, top):
    near, far = (openai.OpenAI(base_url=g.url + "/v1", api_key=g.key, max_retries=0) for g in (gateway, top))
    for talk in (
        lambda c: c.chat.completions.create(model="gpt-4o-mini", messages=ASK).choices[0].message.content,
        lambda c: "".join(x.choices[0].delta.content or "" for x in c.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True)),
        lambda c: c.responses.create(model="gpt-4o-mini", input=ASK[0]["content"]).output_text,
        lambda c: "".join(e.delta for e in c.responses.create(model="gpt-4o-mini", input=ASK[0]["content"], stream=True)
                          if e.type == "response.output_text.delta"),
        lambda c: [model.id for model in c.models.list()],
    ):
        assert talk(far) == talk(near) != ""
    near, far = (anthropic.Anthropic(base_url=g.url, api_key=g.key, max_retries=0) for g in (gateway, top))
    assert far.messages.count_tokens(model=MODEL, messages=ASK) == near.messages.count_tokens(model=MODEL, messages=ASK)
    ask = {"model": MODEL, "max_tokens": 64, "messages": ASK}
    with far.messages.stream(**ask) as stream:
        assert stream.get_final_message().content[0].text == near.messages.create(**ask).content[0].text


def test_going_on_from_a_response_through_three_levels(top):
    client = openai.OpenAI(base_url=top.url + "/v1", api_key=top.key, max_retries=0)
    first = client.responses.create(model="gpt-4o-mini", input="hello")
    for _ in range(4):
        assert client.responses.create(model="gpt-4o-mini", input="go on", previous_response_id=first.id).previous_response_id == first.id


def test_an_outage_at_the_end_costs_three_attempts_and_says_where_it_is(gateway, top):
    for client, keys, ask in (
        (openai.OpenAI(base_url=top.url + "/v1", api_key=top.key), OPENAI_KEYS,
         lambda c: c.chat.completions.create(model="gpt-4o-mini", messages=ASK)),
        (anthropic.Anthropic(base_url=top.url, api_key=top.key), ANTHROPIC_KEYS,
         lambda c: c.messages.create(model=MODEL, max_tokens=9, messages=ASK)),
    ):
        gateway.sim_call("/_sim/reset", {})
        gateway.script(keys, *[{"status": 500}] * 9)
        with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)) as caught:
            ask(client)
        assert gateway.xai("whoami")["identity"]["deployment_id"] in str(caught.value)
        assert gateway.sim_call("/_sim/requests")["count"] <= 3, "the SDK was told not to try again, and no gateway did"


def test_a_provider_at_the_end_is_told_the_way_and_nothing_else(gateway, top):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client = openai.OpenAI(base_url=top.url + "/v1", api_key=top.key, max_retries=0, default_headers={"traceparent": trace})
    client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    headers = dict(gateway.sim_call("/_sim/requests")["requests"][-1]["headers"])
    assert headers["cdn-loop"].count(",") == 2
    told = {"via", "x-attempts-left", "x-request-timeout-ms", "x-request-id", "traceparent"} & set(headers)
    assert not told, "gateways alone are told that (`trace_upstreams`)"

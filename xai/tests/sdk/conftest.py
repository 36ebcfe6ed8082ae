"""One real gateway (the built binary) before one real process of simulated providers, for all SDK tests.

Nothing here knows more of the gateway than a user does: its command line, its addresses, its virtual keys.
"""

import json, os, pathlib, signal, subprocess, tempfile, time, urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
XAI = os.environ.get("XAI_BINARY", str(ROOT / "target/debug/xai"))
OPENAI_KEYS = ["sk-sim-openai-1", "sk-sim-openai-2", "sk-sim-openai-3"]
ANTHROPIC_KEYS = ["sk-ant-sim-1", "sk-ant-sim-2"]


class Gateway:
    """A running gateway and its providers, as a user sees them."""

    def __init__(self, work: pathlib.Path):
        self.data = work / "data"
        self.work = work
        self.sim, self.process = None, None

    def start(self):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("XAI_")}
        sim_file = self.work / "sim.json"
        self.sim = self._spawn("sim", ["sim", "--port", "0", "--addresses-file", str(sim_file)], clean)
        self.sim_url = self._wait_json(sim_file, self.sim)["sim"]
        self.env = {**clean, "XAI_DATA": str(self.data), "XAI_LISTEN": "127.0.0.1:0", "XAI_GRPC": "127.0.0.1:0",
                    "XAI_OPS": "127.0.0.1:0", "XAI_CORES": "2"}
        keys = [f"{k}::openai@{self.sim_url}" for k in OPENAI_KEYS] + [f"{k}::anthropic@{self.sim_url}" for k in ANTHROPIC_KEYS]
        return self._up(",".join(keys))

    def start_below(self, parent, key):
        """Starts a gateway whose one upstream is another one, with this key of it."""
        self.work.mkdir(parents=True)
        self.env = {**parent.env, "XAI_DATA": str(self.data)}
        self.sim_url = parent.sim_url
        return self._up(f"{key}::{parent.url}")

    def _up(self, keys):
        self.process = self._spawn("up", ["up"], {**self.env, "XAI_KEYS": keys})
        addresses = self._wait_json(self.data / "addresses.json", self.process)
        self.url, self.ops = (f"http://{addresses[n]}" for n in ("client", "ops"))
        self._wait_ready()
        self.key = (self.data / "first-key").read_text().strip()
        return self

    def _spawn(self, name, arguments, env):
        log = open(self.work / f"{name}.log", "w")
        return subprocess.Popen([XAI, *arguments], env=env, stdout=log, stderr=log)

    def _wait_json(self, path, process):
        for _ in range(600):
            if path.exists() and path.read_text().strip():
                return json.loads(path.read_text())
            assert process.poll() is None, "\n".join(p.read_text() for p in self.work.glob("*.log"))
            time.sleep(0.05)
        raise AssertionError(f"{path} did not appear")

    def _wait_ready(self):
        for _ in range(600):
            try:
                return urllib.request.urlopen(self.ops + "/ready", timeout=2).read()
            except OSError:
                time.sleep(0.05)
        raise AssertionError("not ready: " + (self.work / "up.log").read_text())

    def stop(self):
        for process in (self.process, self.sim):
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def xai(self, *arguments):
        """Runs an admin command, and gives what it prints as JSON."""
        command = [XAI, *arguments, "--output", "json"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def new_key(self, account="root", name="test"):
        made = self.xai("key", "create", "--account", account, "--name", name)
        return made["key"]["id"], made["secret"]

    def usage(self, key_id, want_attempts):
        """The usage of one key, once so many attempts were booked."""
        for _ in range(200):
            rows = self.xai("usage", "--key", key_id)["rows"]
            if rows and rows[0]["attempts"] >= want_attempts:
                return rows[0]
            time.sleep(0.05)
        raise AssertionError(f"usage never reached {want_attempts} attempts: {rows}")

    def sim_call(self, path, body=None):
        request = urllib.request.Request(self.sim_url + path, None if body is None else json.dumps(body).encode(),
                                         {"content-type": "application/json"}, method="GET" if body is None else "POST")
        return json.loads(urllib.request.urlopen(request, timeout=10).read() or b"null")

    def script(self, upstream_keys, *faults):
        """The next requests of these upstream keys meet these faults, one each."""
        for key in upstream_keys:
            self.sim_call("/_sim/script", {"key": key, "faults": list(faults)})


@pytest.fixture(scope="session")
def gateway():
    with tempfile.TemporaryDirectory(prefix="xai-sdk-") as work:
        one = Gateway(pathlib.Path(work))
        try:
            yield one.start()
        finally:
            one.stop()


@pytest.fixture(autouse=True)
def clean_slate(gateway):
    """No fault of one test reaches the next one."""
    gateway.sim_call("/_sim/reset", {})
    yield

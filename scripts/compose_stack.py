"""The shipped docker-compose.yml, alone in an empty folder, brought up for a test and taken down after it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 180


def missing(sentence):
    """Ends with the one sentence that says what a person has to provide."""
    print(f"e2e-compose: {sentence}", file=sys.stderr)
    sys.exit(2)


def command(*words, env=None, check=True, timeout=600, cwd=None):
    done = subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def compose_program():
    """Either generation; COMPOSE names one, as in COMPOSE=docker-compose."""
    if os.environ.get("COMPOSE"):
        return os.environ["COMPOSE"].split()
    if shutil.which("docker") is None:
        missing("there is no docker here; install Docker's engine with its compose plugin, or docker-compose, and run this again.")
    if command("docker", "info", check=False).returncode != 0:
        missing("Docker's engine does not answer this user; start it (or join its group), and run this again.")
    if command("docker", "compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    missing("there is no compose here; install Docker's compose plugin, or docker-compose 1.29, and run this again.")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stack:
    """A project of compose. `cgroup` puts all its containers into one control group; `more` are further variables of its file."""

    def __init__(self, cgroup=None, more=None):
        self.compose = compose_program()
        self.project = f"xai-e2e-{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix="xai-e2e-"))
        shutil.copy(ROOT / "docker-compose.yml", self.folder)
        self.port = free_port()
        self.image = os.environ.get("XAI_IMAGE", "proxyxai:built")
        self.sim = f"{self.project}-sim"
        balancer = os.environ.get("XAI_LOAD_BALANCER_IMAGE", "proxyxai-load-balancer:built")
        for image in (self.image, balancer):
            if command("docker", "image", "inspect", image, check=False).returncode != 0:
                missing(f"there is no image {image}; `{' '.join(self.compose)} build` makes it, or name another one by XAI_IMAGE and XAI_LOAD_BALANCER_IMAGE.")
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "XAI_IMAGE": self.image,
            "XAI_LOAD_BALANCER_IMAGE": balancer,
            "XAI_PORT": str(self.port),
            "XAI_BASE": f"http://{self.sim}:9001",
            "XAI_KEYS": "sk-e2e-1,sk-e2e-2,sk-e2e-3",
            **(more or {}),
        }
        self.extra = []
        if cgroup:
            services = ["etcd", "control-plane", "node-1", "node-2", "load-balancer"]
            lines = "".join(f"  {name}: {{cgroup_parent: {cgroup}}}\n" for name in services)
            (self.folder / "cgroup.yml").write_text(f"services:\n{lines}")
            self.extra = ["-f", "docker-compose.yml", "-f", "cgroup.yml"]

    def __call__(self, *words, **options):
        return command(*self.compose, *self.extra, *words, env=self.environment, cwd=self.folder, **options)

    def __enter__(self):
        self("up", "-d", timeout=900)
        command("docker", "run", "-d", "--rm", "--name", self.sim, "--network", f"{self.project}_gateway", self.image,
                "xai", "sim", "--address", "0.0.0.0", "--port", "9001")
        self.until("a node serves", self.serves)
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self("logs", "--no-color", "--tail", "60", check=False).stdout[-12000:], file=sys.stderr)
        every = ("--profile", "scale", "--profile", "observe")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self(*every, "down", "-v", "-t", "5", check=False)
        command("docker", "rm", "-f", self.sim, check=False)
        self(*every, "down", "-v", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def xai(self, *words, **options):
        return self("exec", "-T", "control-plane", "xai", *words, **options)

    def container(self, service):
        return self("--profile", "scale", "ps", "-q", service).stdout.split()[0]

    def virtual_key(self):
        said = self.xai("welcome").stdout
        assert "pxai-admin-" in said, said
        return next(line.split()[-1] for line in said.splitlines() if line.startswith("Virtual key"))

    def nodes(self):
        return json.loads(self.xai("nodes", "-o", "json").stdout)["nodes"]

    def serves(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as probe:
            probe.sendall(b"GET / HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
            return b" 200 " in probe.recv(64)
        return False

    def until(self, what, check, patience=PATIENCE):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            found = check()
            if found:
                return found
            time.sleep(0.5)
        raise AssertionError(f"it did not come to this within {patience} s: {what}")

    def memory(self):
        """MiB that each container uses, by service, as the engine counts."""
        mine = f"label=com.docker.compose.project={self.project}"
        ids = command("docker", "ps", "--filter", mine, "--format", '{{.ID}} {{.Label "com.docker.compose.service"}}').stdout
        services = dict(line.split() for line in ids.splitlines())
        units = {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}
        used = command("docker", "stats", "--no-stream", "--format", "{{.ID}} {{.MemUsage}}", *services).stdout
        found = {}
        for line in used.splitlines():
            container, amount = line.split()[:2]
            unit = next((unit for unit in units if amount.endswith(unit)), "B")
            found[services[container]] = float(amount.removesuffix(unit)) * units.get(unit, 0)
        return found

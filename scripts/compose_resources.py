"""The default compose file inside one control group of 1 CPU and 1 GiB: requests at a steady rate beside streams that stay open."""

import asyncio
import json
import os
import time
from pathlib import Path

from compose_stack import Stack, command, missing

RATE, STREAMS, MINUTES = 300, 300, float(os.environ.get("E2E_MINUTES", "10"))
GROUPS = Path("/sys/fs/cgroup")
CONNECTIONS = 50


class Group:
    """One control group of the engine's cgroupfs driver, version 1 or 2."""

    def __init__(self, name):
        if os.geteuid() != 0:
            missing("the resource mode makes a control group, which needs root.")
        driver = command("docker", "info", "--format", "{{.CgroupDriver}} {{.CgroupVersion}}").stdout.split()
        if driver[0] != "cgroupfs":
            missing("the resource mode needs the cgroup driver cgroupfs (--exec-opt native.cgroupdriver=cgroupfs).")
        self.name, self.two = name, driver[1] == "2"
        self.cpu = (GROUPS if self.two else GROUPS / "cpu") / name
        self.ram = (GROUPS if self.two else GROUPS / "memory") / name
        for folder in {self.cpu, self.ram}:
            folder.mkdir(exist_ok=True)
        if self.two:
            (self.cpu / "cpu.max").write_text("100000 100000")
            (self.ram / "memory.max").write_text(str(1 << 30))
        else:
            (self.cpu / "cpu.cfs_period_us").write_text("100000")
            (self.cpu / "cpu.cfs_quota_us").write_text("100000")
            (self.ram / "memory.limit_in_bytes").write_text(str(1 << 30))

    def cpu_seconds(self):
        if self.two:
            return int(dict(line.split() for line in (self.cpu / "cpu.stat").read_text().splitlines())["usage_usec"]) / 1e6
        accounting = GROUPS / "cpuacct" / self.name / "cpuacct.usage"
        return int(accounting.read_text()) / 1e9 if accounting.exists() else float("nan")

    def peak_mib(self):
        file = self.ram / ("memory.peak" if self.two else "memory.max_usage_in_bytes")
        return int(file.read_text()) >> 20 if file.exists() else 0

    def kills(self):
        file = self.ram / ("memory.events" if self.two else "memory.oom_control")
        rows = dict(line.split()[:2] for line in file.read_text().splitlines() if len(line.split()) == 2)
        return int(rows.get("oom_kill", 0))

    def remove(self):
        for folder in {self.cpu, self.ram, GROUPS / "cpuacct" / self.name}:
            for inner in [*folder.glob("*/"), folder]:
                try:
                    inner.rmdir()
                except OSError:
                    pass


def request(key, content, stream):
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}], "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Load:
    def __init__(self, port, key):
        self.port, self.end = port, time.monotonic() + MINUTES * 60
        self.plain = request(key, "Hello [[sim tokens=20 delay_ms=0]]", False)
        # One event a second for as long as the test lasts, and longer.
        self.stream = request(key, f"Hello [[sim tokens={int(MINUTES * 60) + 60} delay_ms=1000]]", True)
        self.done, self.errors, self.late, self.times = 0, [], 0, []
        self.due = asyncio.Queue()
        self.open = 0

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def client(self):
        reader = writer = None
        while (when := await self.due.get()) is not None:
            try:
                if writer is None:
                    reader, writer = await self.connect()
                writer.write(self.plain)
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                assert head.startswith(b"HTTP/1.1 200"), head[:200]
                low = head.lower()
                length = int(low.split(b"content-length:")[1].split(b"\r\n")[0])
                await asyncio.wait_for(reader.readexactly(length), 30)
                self.done += 1
                self.times.append(time.monotonic() - when)
            except Exception as error:  # every failure counts, whatever it is
                self.errors.append(repr(error))
                writer = None

    async def hold(self):
        """A stream that must stay open, and must not fall silent, until the end."""
        try:
            reader, writer = await self.connect()
            writer.write(self.stream)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            assert head.startswith(b"HTTP/1.1 200"), head[:200]
            self.open += 1
            while time.monotonic() < self.end:
                more = await asyncio.wait_for(reader.read(65536), 30)
                assert more, "a stream ended before its end"
            writer.close()
        except Exception as error:
            self.errors.append(f"stream: {error!r}")

    async def run(self, watch):
        streams = [asyncio.create_task(self.hold()) for _ in range(STREAMS)]
        while self.open < STREAMS and not self.errors:
            await asyncio.sleep(0.2)
        clients = [asyncio.create_task(self.client()) for _ in range(CONNECTIONS)]
        watcher = asyncio.create_task(watch(self))
        start, sent = time.monotonic(), 0
        self.end = start + MINUTES * 60
        while (now := time.monotonic()) < self.end:
            while sent < (now - start) * RATE:
                self.due.put_nowait(time.monotonic())
                sent += 1
            await asyncio.sleep(0.005)
        for _ in clients:
            self.due.put_nowait(None)
        await asyncio.gather(*clients, *streams)
        watcher.cancel()
        return sent


def main():
    group = Group(f"xai-e2e-{os.getpid()}")
    try:
        with Stack(cgroup=f"/{group.name}") as stack:
            stack.until("two nodes serve", lambda: sum(node["connected"] for node in stack.nodes()) >= 2)
            load, largest = Load(stack.port, stack.virtual_key()), {}

            async def watch(_):
                while True:
                    for name, mib in (await asyncio.to_thread(stack.memory)).items():
                        largest[name] = max(mib, largest.get(name, 0))
                    await asyncio.sleep(10)

            before = group.cpu_seconds()
            sent = asyncio.run(load.run(watch))
            used = group.cpu_seconds() - before
            load.times.sort()
            at = lambda part: 1000 * load.times[int(len(load.times) * part)]  # noqa: E731
            print(f"{sent} requests sent in {MINUTES:g} minutes, {load.done} answered, {load.open} streams held, {len(load.errors)} errors, {group.kills()} kills")
            print(f"time of an answer, from when it was due: p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms; CPU {used / (MINUTES * 60):.2f} of 1; peak of the group {group.peak_mib()} MiB")
            for name, mib in sorted(largest.items()):
                print(f"  {name:<16} {mib:6.1f} MiB")
            assert not load.errors, load.errors[:5]
            assert load.done == sent and load.open == STREAMS and group.kills() == 0
    finally:
        group.remove()

"""A real Kafka broker for tests: KRaft, one node, on free ports, from the jars that Maven Central has."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
JARS = ROOT / ".cache" / "kafka"
POM = Path(__file__).with_name("pom.xml")
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
JAVA = ["-Xmx320m", "-Xms64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]


def fetch(maven: str) -> None:
    """Put the broker's jars where the tests look for them; nothing to do the second time."""
    done = JARS / ".complete"
    digest = hash_of(POM)
    if done.exists() and done.read_text() == digest:
        return
    shutil.rmtree(JARS, ignore_errors=True)
    command = [
        maven,
        "-q",
        "-B",
        "-f",
        str(POM),
        PLUGIN,
        f"-DoutputDirectory={JARS}",
        "-DincludeScope=runtime",
    ]
    subprocess.run(command, check=True, timeout=600)
    done.write_text(digest)


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Broker:
    """One broker. `kill` is SIGKILL; `start` after it takes the same ports and data again."""

    def __init__(self, java: str) -> None:
        self._java = java
        self.folder = Path(tempfile.mkdtemp(prefix="caudal-kafka-"))
        self.port, self._controller = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "server.properties").write_text(
            f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self._controller}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
controller.listener.names=CONTROLLER
log.dirs={self.folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
auto.create.topics.enable=false
# A killed broker is back in seconds.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
# What was acknowledged is on the disk, because tests kill this broker.
log.flush.interval.messages=1
"""
        )
        (self.folder / "log4j2.properties").write_text(
            "rootLogger.level=warn\nrootLogger.appenderRef.out.ref=out\n"
            "appender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n"
        )

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _command(self, main: str, *arguments: str) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties"
        return [self._java, *JAVA, log4j, "-cp", f"{JARS}/*", main, *arguments]

    def start(self, timeout: float = 40.0) -> None:
        properties = str(self.folder / "server.properties")
        if not (self.folder / "data").exists():
            cluster = uuid.uuid4().hex[:22]
            subprocess.run(
                self._command("kafka.tools.StorageTool", "format", "-t", cluster, "-c", properties),
                check=True, capture_output=True,
            )  # fmt: skip
        with (self.folder / "log").open("ab") as out:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", properties), stdout=out, stderr=out, cwd=self.folder
            )
        deadline = time.monotonic() + timeout
        admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        while True:
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                admin.list_topics(timeout=1)
                return
            except KafkaException:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

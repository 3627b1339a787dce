"""The client tests of the Eclipse paho interoperability suite, as far as they concern an endpoint.

`CAUDAL_TEST_PAHO_SUITE` names the folder `interoperability` of a checkout of eclipse/paho.mqtt.testing;
nothing of it is kept here. Without it these tests do not exist. What does not apply, and why: docs/mqtt.md.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest

SUITE = os.environ["CAUDAL_TEST_PAHO_SUITE"]  # conftest.py leaves this file out where it is not set
RUNNER = """
import sys, unittest
folder, name, port, *tests = sys.argv[1:]
sys.path.insert(0, folder)
sys.argv = ["x"]
suite = __import__(name)
suite.setData = lambda: None
suite.host, suite.port, suite.topic_prefix = "127.0.0.1", int(port), ""
suite.topics = ["TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA"]
suite.wildtopics = ["TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#"]
suite.nosubscribe_topics = ["secret/nosubscribe"]
unittest.main(module=suite, argv=["x", "-v", *[f"Test.{test}" for test in tests]])
"""
FOUR = """testBasic test_dollar_topics test_keepalive test_offline_message_queueing
    test_redelivery_on_reconnect test_subscribe_failure test_unsubscribe test_zero_length_clientid"""
FIVE = """test_assigned_clientid test_basic test_client_topic_alias test_dollar_topics test_flow_control1
    test_flow_control2 test_keepalive test_maximum_packet_size test_offline_message_queueing
    test_publication_expiry test_redelivery_on_reconnect test_request_response test_server_keep_alive
    test_session_expiry test_subscribe_identifiers test_unsubscribe test_will_delay test_will_message
    test_zero_length_clientid"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("module", "tests"), [("client_test", FOUR), ("client_test5", FIVE)])
async def test_the_paho_suite(make_endpoint: Any, sink: Any, module: str, tests: str) -> None:
    endpoint = await make_endpoint(max_keep_alive=60, max_inflight=20, max_topic_aliases=10)
    sink.watching = endpoint
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUNNER, str(SUITE), module, str(endpoint.port), *tests.split(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 300)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = out.decode(errors="replace")
    assert process.returncode == 0, text[-5000:]
    assert f"Ran {len(tests.split())} tests" in text

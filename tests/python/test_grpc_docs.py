"""The examples of docs/grpc.md run as printed, but for the address."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import graft
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2  # noqa: F401  - its messages are known by their names from then on
from grpc_schema import DEADLINE_SECONDS, Api
from machines import Bank

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "grpc.md").read_text()
ADDRESS = "127.0.0.1:7001"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


def test_the_program_runs_as_printed(node: graft.Node[Bank], tmp_path: Path) -> None:
    (command,) = re.findall(r"`python (-m grpc_tools\.protoc .*?)`", TEXT, re.DOTALL)
    made = command.replace("-I proto", f"-I {ROOT / 'proto'}").split()
    subprocess.run([sys.executable, *made], cwd=tmp_path, check=True, timeout=60)
    # In the test's environment Graft is there; what comes first on the path is found first.
    for package in (tmp_path / "graft", tmp_path / "graft" / "v1"):
        (package / "__init__.py").touch()
    (tmp_path / "program.py").write_text(block("python"))
    ran = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env={**os.environ, "GRAFT": node.address},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout.splitlines()) == (0, ["5", "5", "5", "5", "INVALID_CALL no"]), ran.stderr


COMMANDS = [shlex.split(line) for line in block("sh").splitlines()]


@pytest.mark.parametrize("command", COMMANDS, ids=[command[-1] for command in COMMANDS])
def test_what_is_said_with_grpcurl_is_understood(node: graft.Node[Bank], command: list[str]) -> None:
    program, plaintext, data, text, address, name = command
    assert (program, plaintext, data, address) == ("grpcurl", "-plaintext", "-d", ADDRESS)
    # As the tool does it: the schema from the member, the message from JSON.
    with Api(node.address) as api:
        service, method = name.split("/")
        found = api.pool.FindServiceByName(service).FindMethodByName(method)
        request = json_format.Parse(text, GetMessageClass(found.input_type)(), descriptor_pool=api.pool)
        call = api.channel.unary_unary(
            f"/{name}",
            request_serializer=GetMessageClass(found.input_type).SerializeToString,
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        answer = call(request, timeout=DEADLINE_SECONDS)
    assert json_format.MessageToDict(answer) or name.endswith("Transfer")
    if grpcurl := shutil.which("grpcurl"):
        ran = subprocess.run(
            [grpcurl, plaintext, data, text, node.address, name],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)


def test_every_reason_is_explained() -> None:
    kinds = (ROOT / "src" / "infrastructure" / "grpc" / "failure_kinds.rs").read_text()
    codes = (ROOT / "src" / "services" / "error.rs").read_text()
    reasons = {*re.findall(r'"([A-Z_]+)",\s+Code::', kinds), *re.findall(r'=> "([A-Z_]+)",', codes)}
    assert len(reasons) >= 15
    reasons.remove("CLUSTER_MISMATCH")  # a client says it to its caller, and no member to anybody
    assert reasons == set(re.findall(r"^### (.*)$", TEXT, re.MULTILINE))
    table = (ROOT / "proto" / "graft" / "v1" / "client.proto").read_text()
    assert reasons == set(re.findall(r"^//   ([A-Z_]+) +[A-Z_]+ +(?:no|unknown) ", table, re.MULTILINE))

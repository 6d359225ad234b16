"""The tools of others: health checks, reflection, and Google's own compiler of protobuf."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import graft
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_schema import DEADLINE_SECONDS, Api, Told, deposit
from machines import Bank
from nodes import Trio, until

PROTO = Path(__file__).parents[2] / "proto"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def check(address: str, service: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_SECONDS)
        return int(answer.status)


def test_health_of_each_member(trio: Trio) -> None:
    leader = trio.leader()
    for node in trio.running():
        assert check(node.address, "") == SERVING
        until(lambda node=node: check(node.address, "graft.ready") == SERVING, f"{node.id} is ready")
        expected = SERVING if node.id == leader.id else NOT_SERVING
        until(lambda node=node, expected=expected: check(node.address, "graft.leader") == expected, "who leads")
    with pytest.raises(grpc.RpcError) as error:
        check(leader.address, "graft.unready")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_is_watched(trio: Trio) -> None:
    leader = trio.leader()
    to = next(node for node in trio.running() if node.id != leader.id)
    with grpc.insecure_channel(to.address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="graft.leader"), timeout=60
        )
        assert next(watching).status == NOT_SERVING
        leader.members.transfer_leadership(to.id)
        assert next(watching).status == SERVING
        watching.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_in_both_versions(node: graft.Node[Bank], version: str) -> None:
    request = reflection_pb2.ServerReflectionRequest
    with grpc.insecure_channel(node.address) as channel:
        # The two versions differ in their names alone.
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=request.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = [request(list_services=""), request(file_containing_symbol="graft.v1.Admin.Verify")]
        listed, file = ask(iter(asked), timeout=DEADLINE_SECONDS)
        names = {service.name for service in listed.list_services_response.service}
        assert {"graft.v1.Client", "graft.v1.Admin", "grpc.health.v1.Health"} < names
        assert "graft.v1.Peer" not in names
        assert file.file_descriptor_response.file_descriptor_proto
    assert reflection_pb2_grpc.ServerReflectionStub


def test_methods_that_are_not_there(node: graft.Node[Bank]) -> None:
    with grpc.insecure_channel(node.address) as channel:
        for path in ("/graft.v1.Client/Rename", "/graft.v9.Client/Execute"):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(path)(b"", timeout=DEADLINE_SECONDS)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert path in str(error.value.details())


def test_bytes_that_are_no_request(node: graft.Node[Bank]) -> None:
    with grpc.insecure_channel(node.address) as channel:
        for path in ("/graft.v1.Client/Execute", "/graft.v1.Admin/Status", "/graft.v1.Client/Watch"):
            with pytest.raises(grpc.RpcError) as error:
                list(channel.unary_stream(path)(b"\xff\xff\xff\xff", timeout=DEADLINE_SECONDS))
            assert error.value.code() is grpc.StatusCode.INTERNAL
    with Api(node.address) as api:
        assert api.status().role == "leader"


def test_googles_compiler_takes_the_schema(tmp_path: Path) -> None:
    for name in ("client", "admin"):
        compiled = subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--python_out={tmp_path}",
             f"--grpc_python_out={tmp_path}", f"graft/v1/{name}.proto"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (compiled.returncode, compiled.stderr) == (0, "")
        assert (tmp_path / "graft" / "v1" / f"{name}_pb2_grpc.py").is_file()


def test_idle_and_silent_connections_keep_nobody_out(tmp_path: Path) -> None:
    import socket

    config = graft.Config(clients_max=8)
    with graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path, config=config) as node:
        host, port = node.wait_ready().address.rsplit(":", 1)
        silent = [socket.create_connection((host, int(port))) for _ in range(400)]
        idle = [Api(node.address) for _ in range(20)]
        try:
            for api in idle:
                api.execute(deposit("ann", 1))
            busy = []
            for _ in range(8):
                idle.append(api := Api(node.address))
                busy.append(api.Client.Watch(api.message("WatchRequest"), timeout=60))
                # The call is there when another one on the same connection is answered.
                api.status()
            with pytest.raises(grpc.RpcError) as error, Api.__new__(Api) as late:
                late.channel = grpc.insecure_channel(node.address, [("grpc.use_local_subchannel_pool", 1)])
                late.channel.unary_unary("/graft.v1.Client/Query")(b"", timeout=DEADLINE_SECONDS)
            told = Told(error.value)
            assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUSY")
            assert "clients_max" in told.message
            assert told.retry is not None
            assert check(node.address, "") == SERVING, "a health check gets in"
        finally:
            for api in idle:
                api.channel.close()
            for one in silent:
                one.close()

"""Graft's gRPC API as a program in another language sees it: by what a member itself tells of its schema."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import msgspec
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

DEADLINE_SECONDS = 20.0


class Api:
    """One member's services: `api.Client.Execute(...)`, and messages by name: `api.message("ExecuteRequest")`."""

    def __init__(self, address: str, **options: Any) -> None:
        # Each with a connection of its own, however many there are to one address.
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), *options.items()])
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.Client = self._stub("graft.v1.Client")
        self.Admin = self._stub("graft.v1.Admin")

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def _stub(self, name: str) -> SimpleNamespace:
        service: ServiceDescriptor = self.pool.FindServiceByName(name)
        return SimpleNamespace(**{method.name: self._callable(service, method) for method in service.methods})

    def _callable(self, service: ServiceDescriptor, method: MethodDescriptor) -> Any:
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        return getattr(self.channel, kind)(
            f"/{service.full_name}/{method.name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )

    def message(self, name: str, **fields: Any) -> Any:
        return GetMessageClass(self.pool.FindMessageTypeByName(f"graft.v1.{name}"))(**fields)

    def execute(self, command: bytes, timeout: float = DEADLINE_SECONDS, **fields: Any) -> Any:
        request = self.message("ExecuteRequest", command=command, **fields)
        return self.Client.Execute(request, timeout=timeout)

    def query(self, query: bytes, timeout: float = DEADLINE_SECONDS, **fields: Any) -> Any:
        request = self.message("QueryRequest", query=query, **fields)
        return self.Client.Query(request, timeout=timeout)

    def status(self) -> Any:
        return self.Admin.Status(self.message("StatusRequest"), timeout=DEADLINE_SECONDS)


def encoded(name: str, **arguments: Any) -> bytes:
    return msgspec.msgpack.encode([name, arguments])


def deposit(who: str = "ann", amount: int = 1) -> bytes:
    """A command of `machines.Bank`."""
    return encoded("deposit", who=who, amount=amount)


def balance(who: str = "ann") -> bytes:
    """A query of `machines.Bank`."""
    return encoded("balance", who=who)


def value(answer: Any) -> Any:
    assert answer.WhichOneof("reply") == "value", answer
    return msgspec.msgpack.decode(answer.value)


class Told:
    """What the details of an error say."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code = error.code()
        status = rpc_status.from_call(error)
        assert status is not None, f"no details: {error!r}"
        self.message = status.message
        self.retry: error_details_pb2.RetryInfo | None = None
        for detail in status.details:
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.Help):
                if detail.Is(kind.DESCRIPTOR):
                    found = kind()
                    detail.Unpack(found)
                    match found:
                        case error_details_pb2.ErrorInfo():
                            self.info = found
                        case error_details_pb2.RetryInfo():
                            self.retry = found
                        case _:
                            self.help = found
        assert self.info.domain == "graft"
        self.reason = self.info.reason
        self.metadata = dict(self.info.metadata)

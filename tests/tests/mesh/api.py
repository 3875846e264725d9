"""Drives the mesh API by what the server says of it: no generated code, no proto file.

Prints the answers as one JSON object, by method: of a call that failed {"error": its code, "message": …}, of a stream the list of what came until it
was synced. `--follow` prints one watch as a line an event, and does not end.
"""

import argparse
import json
import sys

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "weir.mesh.v1.Mesh"


def channel(given, token):
    credentials = grpc.ssl_channel_credentials(open(given.anchors, "rb").read())
    if token:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(given.address, credentials, options=[("grpc.ssl_target_name_override", given.identity)])


def code_of(ask):
    try:
        ask()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def strangers_are_refused(given, methods):
    for wrong in [None, "made-up"]:
        stranger = channel(given, wrong)
        asked = code_of(lambda: ProtoReflectionDescriptorDatabase(stranger).get_services())
        assert asked == "UNAUTHENTICATED", (wrong, asked)
        for method in methods:
            make = stranger.unary_stream if method.server_streaming else stranger.unary_unary
            call = make(f"/{SERVICE}/{method.name}")
            ask = (lambda: list(call(b"", timeout=10))) if method.server_streaming else (lambda: call(b"", timeout=10))
            asked = code_of(ask)
            assert asked == "UNAUTHENTICATED", (wrong, method.name, asked)


def call_of(open_channel, method, metadata):
    make = open_channel.unary_stream if method.server_streaming else open_channel.unary_unary
    call = make(
        f"/{SERVICE}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )

    def ask(request, timeout):
        message = message_factory.GetMessageClass(method.input_type)()
        json_format.ParseDict(request, message)
        return call(message, timeout=timeout, metadata=metadata)

    return ask


def until_synced(events):
    told = []
    for event in events:
        told.append(json_format.MessageToDict(event))
        if told[-1]["type"] == "WATCH_EVENT_TYPE_SYNCED":
            events.cancel()
            return told


def answer(ask, method, request):
    try:
        if method.server_streaming:
            return until_synced(ask(request, 20))
        return json_format.MessageToDict(ask(request, 20))
    except grpc.RpcError as error:
        return {"error": error.code().name, "message": error.details()}


def main():
    words = argparse.ArgumentParser()
    for name in ["address", "identity", "anchors", "token_file", "requests"]:
        words.add_argument(name)
    words.add_argument("--some", action="store_true", help="not every method is called")
    words.add_argument("--own-token", help="a token for the API server")
    words.add_argument("--follow", action="store_true", help="requests is one of Watch")
    given = words.parse_args()
    requests = json.loads(given.requests)
    open_channel = channel(given, open(given.token_file).read().strip())
    database = ProtoReflectionDescriptorDatabase(open_channel)
    services = [one for one in database.get_services() if not one.startswith("grpc.reflection.")]
    assert services == [SERVICE], services
    methods = DescriptorPool(database).FindServiceByName(SERVICE).methods
    metadata = [("kubernetes-authorization", f"Bearer {given.own_token}")] if given.own_token else []
    if given.follow:
        (watch,) = [method for method in methods if method.name == "Watch"]
        for event in call_of(open_channel, watch, metadata)(requests, None):
            print(json.dumps(json_format.MessageToDict(event), sort_keys=True), file=sys.stderr, flush=True)
        return
    if not given.some:
        strangers_are_refused(given, methods)
        assert sorted(requests) == sorted(method.name for method in methods), "each method is called"
    wanted = [method for method in methods if method.name in requests]
    assert len(wanted) == len(requests), requests
    print(json.dumps({one.name: answer(call_of(open_channel, one, metadata), one, requests[one.name]) for one in wanted}))


main()

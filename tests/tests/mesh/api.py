"""Drives the whole mesh API by what the server says of it: no generated code, no proto file. Prints the answers, one JSON object a method."""

import json
import sys

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "weir.mesh.v1.Mesh"


def channel(address, name, anchors, token):
    credentials = grpc.ssl_channel_credentials(open(anchors, "rb").read())
    if token:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", name)])


def code_of(ask):
    try:
        ask()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def main(address, name, anchors, token_file, requests):
    token = open(token_file).read().strip()
    for wrong in [None, "made-up"]:
        stranger = channel(address, name, anchors, wrong)
        asked = code_of(lambda: ProtoReflectionDescriptorDatabase(stranger).get_services())
        assert asked == "UNAUTHENTICATED", (wrong, asked)
        call = stranger.unary_unary(f"/{SERVICE}/Version")
        assert code_of(lambda: call(b"", timeout=10)) == "UNAUTHENTICATED", wrong
    open_channel = channel(address, name, anchors, token)
    database = ProtoReflectionDescriptorDatabase(open_channel)
    services = [one for one in database.get_services() if not one.startswith("grpc.reflection.")]
    assert services == [SERVICE], services
    service = DescriptorPool(database).FindServiceByName(SERVICE)
    answers = {}
    for method in service.methods:
        request = message_factory.GetMessageClass(method.input_type)()
        # A method that nobody asks for is an error.
        json_format.ParseDict(json.loads(requests)[method.name], request)
        call = open_channel.unary_unary(
            f"/{SERVICE}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        answers[method.name] = json_format.MessageToDict(call(request, timeout=10))
    print(json.dumps(answers))


main(*sys.argv[1:])

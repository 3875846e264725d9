"""A gRPC server that begins each answer and fails every other one with a status after it; and its client."""

import itertools
import sys
from concurrent import futures

import grpc

CALLS = 20


def serve(address):
    count = itertools.count()

    def call(request, context):
        context.send_initial_metadata((("x-begun", "yes"),))
        if next(count) % 2 == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not this time")
        return request

    methods = {"Call": grpc.unary_unary_rpc_method_handler(call)}
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("weir.Flaky", methods),))
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


def call(target):
    # Without retries of its own.
    channel = grpc.insecure_channel(target, options=[("grpc.enable_retries", 0)])
    ask = channel.unary_unary("/weir.Flaky/Call")
    failed = 0
    for number in range(CALLS):
        message = bytes([number]) * number * 1000
        try:
            assert ask(message, timeout=20) == message, number
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            failed += 1
    print(failed)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](sys.argv[2])

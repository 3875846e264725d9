"""gRPC server and client without generated code: messages are bytes. The client's cases assert; the last line says "passed"."""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "interop.Test"


def abort(request, context):
    context.set_trailing_metadata((("x-detail-bin", b"\x00\x01\xff"),))
    code = next(code for code in grpc.StatusCode if code.value[0] == int(request))
    context.abort(code, "said no: %d \u00e4" % int(request))


class Server:
    def __init__(self):
        self.cancelled = threading.Event()
        self.held = threading.Event()

    def unary(self, request, context):
        metadata = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-client", metadata.get("l5d-client-id", "")),))
        context.set_trailing_metadata((("x-size", str(len(request))),))
        return request

    def down(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number

    def up(self, requests, context):
        return b"%d" % sum(len(request) for request in requests)

    def early(self, requests, context):
        return next(requests)

    def both(self, requests, context):
        for request in requests:
            yield request[::-1]

    def hold(self, request, context):
        context.add_callback(self.cancelled.set)
        yield b"held"
        # Ends by the client's doing only.
        self.cancelled.wait(20)

    def was_cancelled(self, request, context):
        got = self.cancelled.wait(10)
        self.cancelled.clear()
        return b"yes" if got else b"no"


def serve(address):
    own = Server()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(own.unary),
        "Abort": grpc.unary_unary_rpc_method_handler(abort),
        "Down": grpc.unary_stream_rpc_method_handler(own.down),
        "Up": grpc.stream_unary_rpc_method_handler(own.up),
        "Early": grpc.stream_unary_rpc_method_handler(own.early),
        "Both": grpc.stream_stream_rpc_method_handler(own.both),
        "Hold": grpc.unary_stream_rpc_method_handler(own.hold),
        "WasCancelled": grpc.unary_unary_rpc_method_handler(own.was_cancelled),
    }
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    assert server.add_insecure_port(address) != 0
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


class Client:
    def __init__(self, address):
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        self.channel = grpc.insecure_channel(address, options=options)

    def path(self, name):
        return "/%s/%s" % (SERVICE, name)

    def case_unary(self, identity):
        call = self.channel.unary_unary(self.path("Unary"))
        for size in (0, 1, 1000, 70_000, 5_000_000):
            payload = bytes(size)
            answer, done = call.with_call(payload, timeout=20, metadata=(("x-bin-bin", b"\x00\xff"),))
            assert answer == payload, len(answer)
            assert dict(done.trailing_metadata())["x-size"] == str(size)
            assert dict(done.initial_metadata())["x-client"] == identity, done.initial_metadata()
        pending = [call.future(b"%d" % number, timeout=20) for number in range(500)]
        assert [one.result() for one in pending] == [b"%d" % number for number in range(500)]

    def case_streams(self, _identity):
        down = list(self.channel.unary_stream(self.path("Down"))(b"2000", timeout=20))
        assert down == [b"%d" % number for number in range(2000)]
        up = self.channel.stream_unary(self.path("Up"))
        assert up(iter([bytes(100_000)] * 100), timeout=20) == b"10000000"
        # Each message is answered before the next one is sent: nothing waits for a full buffer.
        step = threading.Semaphore(1)

        def messages():
            for number in range(100):
                assert step.acquire(timeout=10)
                yield b"%06d" % number

        both = self.channel.stream_stream(self.path("Both"))
        for number, answer in enumerate(both(messages(), timeout=20)):
            assert answer == (b"%06d" % number)[::-1], answer
            step.release()
        assert number == 99

    def case_early(self, _identity):
        messages = (b"%06d" % number + bytes(100_000) for number in range(2000))
        answer = self.channel.stream_unary(self.path("Early"))(messages, timeout=20)
        assert answer[:6] == b"000000", answer[:6]
        assert next(messages, None) is not None, "the whole stream was read"

    def case_status(self, _identity):
        call = self.channel.unary_unary(self.path("Abort"))
        for number in range(1, 17):
            try:
                call(b"%d" % number, timeout=20)
                raise AssertionError("no error")
            except grpc.RpcError as error:
                assert error.code().value[0] == number, error
                assert error.details() == "said no: %d \u00e4" % number, error.details()
                assert dict(error.trailing_metadata())["x-detail-bin"] == b"\x00\x01\xff"
        try:
            self.channel.unary_unary(self.path("Nothing"))(b"", timeout=20)
            raise AssertionError("no error")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

    def case_deadline(self, _identity):
        hold = self.channel.unary_stream(self.path("Hold"))
        check = self.channel.unary_unary(self.path("WasCancelled"))
        began = time.monotonic()
        try:
            list(hold(b"", timeout=0.5))
            raise AssertionError("no deadline")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        assert 0.3 < time.monotonic() - began < 5
        assert check(b"", timeout=20) == b"yes", "the deadline did not reach the server"

    def case_cancel(self, _identity):
        hold = self.channel.unary_stream(self.path("Hold"))
        check = self.channel.unary_unary(self.path("WasCancelled"))
        call = hold(b"", timeout=20)
        assert next(call) == b"held"
        call.cancel()
        assert check(b"", timeout=20) == b"yes", "the cancellation did not reach the server"

    def case_unavailable(self, _identity):
        try:
            self.channel.unary_unary(self.path("Unary"))(b"", timeout=10)
            raise AssertionError("no error")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            assert "connect" in error.details(), error.details()
            assert "l5d-proxy-error" in dict(error.trailing_metadata() or ()) or "l5d-proxy-error" in dict(
                error.initial_metadata() or ()
            ), error


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    getattr(Client(sys.argv[2]), "case_" + sys.argv[1])(sys.argv[3])
    print("passed")

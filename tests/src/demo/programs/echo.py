"""A gRPC echo of raw bytes, without generated code. `echo.py serve PORT` or `echo.py call HOST:PORT SECONDS TEXT`."""
import json
import sys
import time
from concurrent import futures

import grpc

METHOD = "/demo.Echo/Say"
same = lambda message: message


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request, same, same)


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Echo()])
    server.add_insecure_port(f"[::]:{port}")
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


def call(target, seconds, text):
    """Twenty unary calls a second on one channel."""
    times, failed, end = [], 0, time.monotonic() + seconds
    with grpc.insecure_channel(target) as channel:
        say = channel.unary_unary(METHOD, same, same)
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                if say(text.encode(), timeout=5) != text.encode():
                    raise ValueError("another answer")
                times.append((time.monotonic() - start) * 1000)
            except (grpc.RpcError, ValueError) as error:
                failed += 1
                print(str(error).splitlines()[0], file=sys.stderr)
            time.sleep(max(0.0, 0.05 - (time.monotonic() - start)))
    times.sort()
    at = lambda share: times[int(share * (len(times) - 1))] if times else None
    print(json.dumps({"ok": len(times), "failed": failed, "p50_ms": at(0.5), "p99_ms": at(0.99)}))


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    call(sys.argv[2], float(sys.argv[3]), sys.argv[4])

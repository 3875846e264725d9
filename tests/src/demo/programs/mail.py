"""A protocol in which the server speaks first, as SMTP does. `mail.py serve PORT GREETING` or `mail.py call HOST PORT SECONDS`."""
import json
import socket
import socketserver
import sys
import time


def serve(port, greeting):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(f"220 {greeting}\r\n".encode())
            for line in self.rfile:
                self.wfile.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 ok\r\n")
                if line.startswith(b"QUIT"):
                    break

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        address_family = socket.AF_INET6
        request_queue_size = 128

    with Server(("::", port), Handler) as server:
        print("serving", flush=True)
        server.serve_forever()


def call(host, port, seconds):
    """Ten conversations a second; latency is the time from connect to the greeting."""
    times, failed, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        try:
            with socket.create_connection((host, port), 5) as connection:
                if not connection.recv(512).startswith(b"220 "):
                    raise OSError("no greeting")
                times.append((time.monotonic() - start) * 1000)
                for word in (b"HELO demo\r\n", b"QUIT\r\n"):
                    connection.sendall(word)
                    if not connection.recv(512).startswith(b"2"):
                        raise OSError("no answer")
        except OSError:
            failed += 1
        time.sleep(max(0.0, 0.1 - (time.monotonic() - start)))
    times.sort()
    at = lambda share: times[int(share * (len(times) - 1))] if times else None
    print(json.dumps({"ok": len(times), "failed": failed, "p50_ms": at(0.5), "p99_ms": at(0.99)}))


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]), sys.argv[3])
else:
    call(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))

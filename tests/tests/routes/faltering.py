"""A server that answers the first requests with one `id` with the status `code`, `after` of them, and 200 from then on."""

import collections
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

asked = collections.Counter()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        said = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        asked[said["id"]] += 1
        count = asked[said["id"]]
        body = f"asked={count}\n".encode()
        self.send_response(int(said["code"]) if count <= int(said["after"]) else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()

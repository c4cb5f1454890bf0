"""Answers with the path that it sees, decoded and cleaned as http.server does for files: path.py PORT"""
import http.server, posixpath, sys
from urllib.parse import unquote, urlsplit


class Path(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path, errors="surrogateescape")
        clean = posixpath.normpath(path)
        body = (clean + "/" if path.endswith("/") and clean != "/" else clean).encode(errors="surrogateescape")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Path).serve_forever()

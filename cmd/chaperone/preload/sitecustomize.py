# Loaded into every Python of a session (PYTHONPATH). Libraries that would go past the
# proxy or bring roots of their own are told better once they are imported: aiohttp,
# boto (gsutil), certifi, httplib2 (Google's client), stripe. A sitecustomize that was there before runs as ever.
import os
import sys


def _aiohttp(module):
    session = module.ClientSession
    begin = session.__init__

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("trust_env", True)
        begin(self, *args, **kwargs)

    session.__init__ = __init__


def _boto(module):
    config = getattr(module, "config", None)
    if config is not None:
        if not config.has_section("Boto"):
            config.add_section("Boto")
        config.set("Boto", "ca_certificates_file", os.environ["SSL_CERT_FILE"])


def _certifi(module):
    def where():
        return os.environ["SSL_CERT_FILE"]

    def contents():
        with open(where(), encoding="ascii") as bundle:
            return bundle.read()

    module.where, module.contents = where, contents
    core = sys.modules.get("certifi.core")
    if core is not None:
        core.where, core.contents = where, contents


def _httplib2(module):
    """Without pysocks it knows no proxy at all."""
    connection = getattr(module, "HTTPSConnectionWithTimeout", None)
    proxy = urlsplit(os.environ.get("HTTPS_PROXY") or os.environ["https_proxy"])
    if connection is None or getattr(module, "socks", None) is not None or proxy.scheme != "http":
        return
    straight = connection.connect

    def connect(self):
        if self.host == "localhost" or self.host.startswith("127.") or not hasattr(self, "_context"):
            return straight(self)
        import socket
        from base64 import b64encode
        from http.client import HTTPResponse

        limit = self.timeout if isinstance(self.timeout, (int, float)) else socket.getdefaulttimeout()
        link = socket.create_connection((proxy.hostname, proxy.port or 80), limit)
        try:
            to = "%s:%d" % (self.host, self.port)
            login = b64encode(("%s:%s" % (unquote(proxy.username or ""), unquote(proxy.password or ""))).encode()).decode()
            link.sendall(("CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\n\r\n" % (to, to, login)).encode("ascii"))
            answer = HTTPResponse(link, method="CONNECT")
            answer.begin()
            if answer.status != 200:
                raise OSError("proxy answered %d %s" % (answer.status, answer.reason))
            self.sock = self._context.wrap_socket(link, server_hostname=self.host)
        except Exception:
            link.close()
            raise

    connection.connect = connect


def _stripe(module):
    module.ca_bundle_path = os.environ["SSL_CERT_FILE"]


class _Mender:
    mends = {"aiohttp.client": _aiohttp, "boto": _boto, "certifi": _certifi, "httplib2": _httplib2, "stripe": _stripe}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in cls.mends:
            return None
        mend = cls.mends[name]
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            mend(module)

        spec.loader.exec_module = exec_module
        return spec


def _previous():
    here = os.path.realpath(os.path.dirname(__file__))
    others = [p for p in sys.path if os.path.realpath(p or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(sys.modules[__name__])


if sys.version_info >= (3, 4):
    from importlib.machinery import PathFinder
    from urllib.parse import unquote, urlsplit

    if os.environ.get("SSL_CERT_FILE") and (os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")):
        sys.meta_path.insert(0, _Mender)
        for _name, _mend in _Mender.mends.items():
            if _name in sys.modules:  # a .pth file was faster
                _mend(sys.modules[_name])
    _previous()

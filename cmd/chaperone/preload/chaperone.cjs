// Loaded into every Node of a session (NODE_OPTIONS=--require). A TLS connection that
// a library would open past the proxy goes through it: Node before 24, ws, and SDKs
// that bring an agent of their own. What already has a socket is left alone.
"use strict";
(() => {
  const named = process.env.HTTPS_PROXY || process.env.https_proxy;
  if (!named) return;
  const net = require("net");
  const tls = require("tls");
  const { Duplex } = require("stream");
  const proxy = new URL(named);

  const past = (process.env.NO_PROXY || process.env.no_proxy || "").split(/[\s,]+/).filter(Boolean);
  const direct = (host) =>
    /^(localhost|127\.[\d.]+|::1|\[::1\])$/i.test(host) ||
    past.some((p) => p === "*" || host === p.replace(/^\*?\./, "") || host.endsWith("." + p.replace(/^\*?\./, "")));

  class Tunnel extends Duplex {
    constructor(host, port) {
      super();
      this.to = (net.isIPv6(host) ? `[${host}]` : host) + ":" + port;
    }
    _construct(done) {
      const { request } = proxy.protocol === "https:" ? require("https") : require("http");
      const login = decodeURIComponent(proxy.username) + ":" + decodeURIComponent(proxy.password);
      const ask = request({
        method: "CONNECT", path: this.to, agent: false,
        host: proxy.hostname.replace(/^\[|\]$/g, ""), port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
        headers: { Host: this.to, "Proxy-Authorization": "Basic " + Buffer.from(login).toString("base64") },
      });
      ask.once("error", done);
      ask.once("response", (answer) => done(new Error(`proxy answered ${answer.statusCode} ${answer.statusMessage}`)));
      ask.once("connect", (answer, socket, head) => {
        if (answer.statusCode !== 200) {
          socket.destroy();
          return done(new Error(`proxy answered ${answer.statusCode} ${answer.statusMessage}`));
        }
        this.inner = socket;
        if (this.idle) socket.unref();
        if (head.length) this.push(head);
        socket.setNoDelay(true);
        socket.on("data", (chunk) => this.push(chunk) || socket.pause());
        socket.on("end", () => this.push(null));
        socket.on("error", (err) => this.destroy(err));
        socket.on("close", () => this.destroy());
        done();
      });
      ask.end();
    }
    _read() { this.inner.resume(); }
    _write(chunk, encoding, done) { this.inner.write(chunk, encoding, done); }
    _final(done) { this.inner.end(done); }
    // An agent holds idle connections without holding the program. TLS does not hand that
    // on to what is below it.
    hold(on) {
      this.idle = !on;
      if (this.inner) on ? this.inner.ref() : this.inner.unref();
    }
    _destroy(err, done) {
      if (this.inner) this.inner.destroy();
      done(err);
    }
  }

  const connect = tls.connect;
  tls.connect = function (...args) {
    const done = typeof args[args.length - 1] === "function" ? args.pop() : undefined;
    let options = args.find((a) => a !== null && typeof a === "object") || {};
    if (typeof args[0] !== "object") {
      if (!/^\d+$/.test(String(args[0]))) return connect.call(this, ...args, ...(done ? [done] : [])); // a path
      options = { ...options, port: args[0] };
      if (typeof args[1] === "string") options.host = args[1];
    }
    const host = options.host || options.hostname || "localhost";
    if (options.socket || options.path || options.socketPath || direct(host)) {
      return connect.call(this, ...args, ...(done ? [done] : []));
    }
    const servername = options.servername || (net.isIP(host) ? "" : host);
    const tunnel = new Tunnel(host, options.port || 443);
    const secure = connect.call(this, { ...options, servername, socket: tunnel }, ...(done ? [done] : []));
    for (const name of ["ref", "unref"]) {
      const own = secure[name];
      secure[name] = function () {
        tunnel.hold(name === "ref");
        return own.call(this);
      };
    }
    return secure;
  };
  // Node's own agent (NODE_USE_ENV_PROXY) leaves the socket open where the proxy refuses,
  // and the program never ends.
  if (process.env.NODE_USE_ENV_PROXY) {
    const https = require("https");
    https.globalAgent = new https.Agent({ keepAlive: true, scheduling: "lifo", timeout: 5000 });
  }
  require("module").syncBuiltinESMExports();
})();

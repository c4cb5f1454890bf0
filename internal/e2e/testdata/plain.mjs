// One request of one HTTP client: plain.mjs CLIENT. What to ask stands in the environment.
import { Readable } from "node:stream";

const { METHOD: method, URL: url, BODY: body, TOKEN } = process.env;
const headers = { Authorization: "Bearer " + TOKEN };

const clients = {
  async fetch() {
    return Readable.fromWeb((await fetch(url, { method, headers, body: body || undefined })).body);
  },
  async https() {
    const { request } = await import("node:https");
    return new Promise((resolve, reject) => request(url, { method, headers }, resolve).on("error", reject).end(body));
  },
  async undici() {
    const { request } = await import("undici");
    return (await request(url, { method, headers, body: body || undefined })).body;
  },
  async axios() {
    const { default: axios } = await import("axios");
    return (await axios({ url, method, headers, data: body || undefined, validateStatus: null, responseType: "stream" })).data;
  },
  async got() {
    const { default: got } = await import("got");
    const stream = got.stream(url, { method, headers, body: body || undefined, throwHttpErrors: false, retry: { limit: 0 } });
    if (method === "DELETE") stream.end(); // it waits for a body otherwise
    return stream;
  },
};

try {
  for await (const chunk of await clients[process.argv[2]]()) process.stdout.write(chunk);
} catch (err) {
  for (let e = err; e; e = e.cause) console.error(`${e.constructor.name}: ${e.message}`);
  process.exitCode = 1;
}

// HTTP Message Signatures by a library of others. `verify` reads a request from standard
// input, with the key that it must be signed with, and says whether it is. Otherwise an
// agent calls BANK, and prints a line for each call: it signs by itself, with keys that
// are worth nothing and the key id that it is told.
import crypto from "node:crypto";
import fs from "node:fs";
import { createSigner, createVerifier, httpbis } from "http-message-signatures";

async function verify() {
  const { method, url, headers, body, algorithm, id, key, must } = JSON.parse(fs.readFileSync(0));
  const lookup = async (p) => (p.keyid === id ? { id, algs: [algorithm], verify: createVerifier(key, algorithm) } : null);
  const fields = must.filter((f) => !f.endsWith("?"));
  const valid = await httpbis.verifyMessage({ keyLookup: lookup, requiredFields: fields, requiredParams: ["created", "keyid"], all: true }, { method, url, headers });
  if (valid !== true) throw new Error(`verified: ${valid}`);
  const digest = headers["content-digest"];
  if (digest) {
    const [, hash, sum] = /^sha-(256|512)=:(.*):$/.exec(digest);
    if (crypto.createHash("sha" + hash).update(Buffer.from(body, "base64")).digest("base64") !== sum) throw new Error("the digest is another body's");
  }
  console.log("verified", Object.keys(headers).filter((n) => n.startsWith("signature")).length, /"content-digest"/.test(headers["signature-input"]));
}

async function call(what, keyid, headers, body) {
  const key = createSigner(crypto.randomBytes(32), "hmac-sha256", keyid);
  let request = { method: body ? "POST" : "GET", url: process.env.BANK + "/payments?to=Ada%20L&x=1", headers };
  if (keyid) request = await httpbis.signMessage({ key, name: "own", fields: ["@method"] }, request);
  const answer = await fetch(request.url, { method: request.method, headers: request.headers, body });
  console.log(what, answer.status, (await answer.text()).replace(/\s+/g, " ").slice(0, 300));
}

if (process.argv[2] === "verify") {
  await verify();
} else {
  const handle = process.env.BANK_KEY;
  await call("signs", handle, { "content-type": "application/json" }, '{"amount":1}');
  await call("does not", "", { authorization: `Bearer ${handle}` });
  await call("lacks", "", { authorization: `Bearer ${handle}`, "x-lacks": "1" }, "1");
  await call("found", "acme-1", { authorization: `Bearer ${handle}` });
}

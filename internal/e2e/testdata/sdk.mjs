// One call of one SDK: sdk.mjs SDK CALL, where CALL is read, write, events, socket, endless or denied.
const env = process.env;
const [sdk, call] = process.argv.slice(2);
const say = [{ role: "user", content: "hi" }];
const model = call === "endless" ? "endless" : "small";

const sdks = {
  async octokit() {
    const { Octokit } = await import("@octokit/rest");
    const api = new Octokit({ auth: env.GITHUB_TOKEN, log: { debug() {}, info() {}, warn() {}, error() {} } });
    const repo = { owner: "acme", repo: "web" };
    if (call === "denied") return api.rest.repos.delete(repo);
    if (call === "read") return (await api.rest.issues.listForRepo(repo)).data[0].title;
    return (await api.rest.issues.create({ ...repo, title: "made by octokit" })).data.title;
  },
  async slack() {
    const { WebClient } = await import("@slack/web-api");
    const api = new WebClient(env.SLACK_BOT_TOKEN, { retryConfig: { retries: 0 }, logLevel: "error" });
    if (call === "denied") return api.chat.delete({ channel: "C1", ts: "1.0" });
    if (call === "read") return (await api.auth.test()).team;
    return (await api.chat.postMessage({ channel: "C1", text: "hi" })).ts;
  },
  async openai() {
    const { default: OpenAI } = await import("openai");
    const api = new OpenAI({ maxRetries: 0 });
    if (call === "denied") return api.models.delete("small");
    if (call === "read") return (await api.models.list()).data[0].id;
    if (call === "write") return (await api.chat.completions.create({ model, messages: say })).choices[0].message.content;
    for await (const chunk of await api.chat.completions.create({ model, stream: true, messages: say })) {
      console.log(chunk.choices[0].delta.content);
    }
  },
  async anthropic() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const api = new Anthropic({ maxRetries: 0 });
    if (call === "denied") return api.models.retrieve("small");
    if (call === "read") return (await api.models.list()).data[0].id;
    if (call === "write") return (await api.messages.create({ model, max_tokens: 9, messages: say })).content[0].text;
    for await (const event of await api.messages.create({ model, max_tokens: 9, stream: true, messages: say })) {
      if (event.delta?.text) console.log(event.delta.text);
    }
  },
  async stripe() {
    const { default: Stripe } = await import("stripe");
    const api = new Stripe(env.STRIPE_API_KEY, { maxNetworkRetries: 0 });
    if (call === "denied") return api.customers.del("cus_1");
    if (call === "read") return (await api.balance.retrieve()).available[0].amount;
    return (await api.customers.create({ name: "Ada" })).id;
  },
  async mcp() {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const transport = new StreamableHTTPClientTransport(new URL("https://mcp.example.com/mcp"), {
      requestInit: { headers: { Authorization: "Bearer " + env.MCP_TOKEN } },
      reconnectionOptions: { maxRetries: 0, initialReconnectionDelay: 1, maxReconnectionDelay: 1, reconnectionDelayGrowFactor: 1 },
    });
    const client = new Client({ name: "test", version: "1.0.0" });
    await client.connect(transport);
    if (call === "read") return JSON.stringify(await client.listTools());
    return JSON.stringify(await client.callTool({ name: call === "denied" ? "wipe" : "look", arguments: {} }));
  },
  async grpc() {
    const { default: grpc } = await import("@grpc/grpc-js");
    const client = new grpc.Client("grpc.example.com:443", grpc.credentials.createSsl());
    const metadata = new grpc.Metadata();
    metadata.set("authorization", "Bearer " + env.ECHO_TOKEN);
    const message = Buffer.from("\x0a\x0esaid over gRPC", "latin1");
    const same = (b) => b;
    return new Promise((resolve, reject) => {
      const show = (out) => console.log(out.toString("latin1", 2));
      if (call === "endless" || call === "events") {
        const stream = call === "endless"
          ? client.makeServerStreamRequest("/chaperone.test.Echo/Watch", same, same, message, metadata)
          : client.makeBidiStreamRequest("/chaperone.test.Echo/Talk", same, same, metadata);
        stream.on("data", show).on("error", reject).on("end", resolve);
        if (call === "events") stream.write(message), stream.end();
        return;
      }
      const path = "/chaperone.test.Echo/" + (call === "denied" ? "Drop" : "Say");
      client.makeUnaryRequest(path, same, same, message, metadata, (err, out) => (err ? reject(err) : resolve(show(out))));
    });
  },
  async ws() {
    const { default: WebSocket } = await import("ws");
    return talk(new WebSocket("wss://shapes.example.com/" + (call === "denied" ? "hang" : "ws"), { headers: { Authorization: "Bearer " + env.SHAPES_TOKEN } }));
  },
  async websocket() {
    return talk(new WebSocket("wss://shapes.example.com/ws"));
  },
};

function talk(socket) {
  return new Promise((resolve, reject) => {
    socket.onerror = (event) => reject(event.error ?? new Error(event.message));
    socket.onclose = () => reject(new Error("the socket was closed"));
    socket.onopen = () => socket.send(call === "endless" ? "tick" : "said over a socket");
    socket.onmessage = ({ data }) => {
      if (call !== "endless") return resolve(data);
      console.log(data);
      setTimeout(() => socket.send("tick"), 50);
    };
    socket.on?.("unexpected-response", (_, answer) => {
      let text = `HTTP ${answer.statusCode} `;
      answer.on("data", (chunk) => (text += chunk)).on("end", () => reject(new Error(text)));
    });
  });
}

try {
  console.log((await sdks[sdk]()) ?? "");
} catch (err) {
  for (let e = err; e; e = e.cause) console.error(`${e.constructor.name}: ${e.message}`);
  process.exitCode = 1;
}
process.exit();

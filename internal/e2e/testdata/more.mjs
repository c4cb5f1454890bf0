// One call of one client that `go test -clients=all` installs: more.mjs CLIENT allowed|denied
const env = process.env;
const github = "https://api.github.com/repos/acme/web";
const headers = { Authorization: "Bearer " + env.GITHUB_TOKEN };
const method = (mode) => (mode === "denied" ? "DELETE" : "GET");
const url = (mode) => github + (mode === "denied" ? "" : "/issues");

const clients = {
  async undici(mode) {
    const { request, EnvHttpProxyAgent } = await import("undici");
    return (await request(url(mode), { method: method(mode), headers, dispatcher: new EnvHttpProxyAgent() })).body.text();
  },
  async axios(mode) {
    const { default: axios } = await import("axios");
    return JSON.stringify((await axios({ url: url(mode), method: method(mode), headers, validateStatus: null })).data);
  },
  async got(mode) {
    const { default: got } = await import("got");
    return (await got(url(mode), { method: method(mode), headers, throwHttpErrors: false, retry: { limit: 0 } })).body;
  },
  async octokit(mode) {
    const { Octokit } = await import("@octokit/rest");
    const api = new Octokit({ auth: env.GITHUB_TOKEN, log: { debug() {}, info() {}, warn() {}, error() {} } });
    const repo = { owner: "acme", repo: "web" };
    if (mode === "denied") return api.rest.repos.delete(repo);
    return (await api.rest.issues.create({ ...repo, title: "from octokit" })).data.title;
  },
  async slack(mode) {
    const { WebClient } = await import("@slack/web-api");
    const api = new WebClient(env.SLACK_BOT_TOKEN, { retryConfig: { retries: 0 } });
    if (mode === "denied") return api.chat.delete({ channel: "C1", ts: "1.0" });
    return (await api.chat.postMessage({ channel: "C1", text: "hi" })).ts;
  },
  async openai(mode) {
    const { default: OpenAI } = await import("openai");
    const api = new OpenAI({ maxRetries: 0 });
    if (mode === "denied") return api.models.delete("small");
    const stream = await api.chat.completions.create({ model: "small", stream: true, messages: [{ role: "user", content: "hi" }] });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0].delta.content;
    return text;
  },
  async anthropic(mode) {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const api = new Anthropic({ maxRetries: 0 });
    if (mode === "denied") return api.models.list();
    return (await api.messages.create({ model: "small", max_tokens: 9, messages: [{ role: "user", content: "hi" }] })).content[0].text;
  },
  async stripe(mode) {
    const { default: Stripe } = await import("stripe");
    const api = new Stripe(env.STRIPE_API_KEY, { httpClient: Stripe.createFetchHttpClient(), maxNetworkRetries: 0 });
    if (mode === "denied") return api.customers.del("cus_1");
    return (await api.balance.retrieve()).available[0].amount;
  },
  async mcp(mode) {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const to = new URL("https://mcp.example.com/" + (mode === "denied" ? "admin" : "mcp"));
    const transport = new StreamableHTTPClientTransport(to, { requestInit: { headers: { Authorization: "Bearer " + env.MCP_TOKEN } } });
    const client = new Client({ name: "test", version: "1.0.0" });
    await client.connect(transport);
    return JSON.stringify(await client.listTools());
  },
  async grpc(mode) {
    const { default: grpc } = await import("@grpc/grpc-js");
    const client = new grpc.Client("grpc.example.com:443", grpc.credentials.createSsl());
    const metadata = new grpc.Metadata();
    metadata.set("authorization", "Bearer " + env.ECHO_TOKEN);
    const message = Buffer.from("\x0a\x0esaid over gRPC", "latin1");
    const same = (b) => b;
    const path = "/chaperone.test.Echo/" + (mode === "denied" ? "Talk" : "Say");
    return new Promise((resolve, reject) =>
      client.makeUnaryRequest(path, same, same, message, metadata, (err, out) => (err ? reject(err) : resolve(out.toString()))));
  },
  async ws(mode) {
    const { default: WebSocket } = await import("ws");
    return new Promise((resolve, reject) => {
      const to = "wss://shapes.example.com/" + (mode === "denied" ? "hang" : "ws");
      const socket = new WebSocket(to, { headers: { Authorization: "Bearer " + env.SHAPES_TOKEN } });
      socket.on("error", reject).on("open", () => socket.send("said over a socket"));
      socket.on("message", (text) => { resolve(String(text)); socket.close(); });
    });
  },
};

const [client, mode] = process.argv.slice(2);
try {
  console.log(await clients[client](mode));
} catch (err) {
  console.log(err.constructor.name + ":", err.message, err.body ?? "");
  process.exitCode = 1;
}
process.exit();

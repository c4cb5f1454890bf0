// Calls of several SDKs whose names the decision log must tell: names.mjs SDK
const env = process.env;
// what is refused is named all the same
const tried = (call) => call.catch((e) => console.log(e.status ?? e.statusCode ?? e.code ?? "refused"));

const sdks = {
  async octokit() {
    const { Octokit } = await import("@octokit/rest");
    const quiet = { debug() {}, info() {}, warn() {}, error() {} };
    const api = new Octokit({ auth: env.GITHUB_TOKEN, log: quiet });
    const repo = { owner: "acme", repo: "web" };
    await tried(api.rest.repos.get(repo));
    await tried(api.rest.issues.create({ ...repo, title: "x" }));
    await tried(api.rest.issues.createComment({ ...repo, issue_number: 5, body: "x" }));
    await tried(api.rest.pulls.merge({ ...repo, pull_number: 5 }));
    await tried(api.rest.repos.createOrUpdateFileContents({ ...repo, path: "docs/a b.md", message: "x", content: "eA==" }));
    await tried(api.rest.git.getRef({ ...repo, ref: "heads/feature/x" }));
    await tried(api.rest.actions.createWorkflowDispatch({ ...repo, workflow_id: "ci.yml", ref: "main" }));
    await tried(api.rest.search.code({ q: "x repo:acme/web" }));
    await tried(api.graphql(`mutation { a: createIssue(input: {repositoryId: "R_1", title: "x"}) { issue { id } } b: deleteIssue(input: {issueId: "I_1"}) { clientMutationId } }`));
  },
  async slack() {
    const { WebClient } = await import("@slack/web-api");
    const api = new WebClient(env.SLACK_BOT_TOKEN, { retryConfig: { retries: 0 }, logLevel: "error" });
    await tried(api.chat.postMessage({ channel: "C1", text: "hi" }));
    await tried(api.conversations.history({ channel: "C2" }));
    await tried(api.reactions.add({ channel: "C1", timestamp: "1.0", name: "ok" }));
    await tried(api.users.info({ user: "U1" }));
    await tried(api.conversations.list());
  },
  async stripe() {
    const { default: Stripe } = await import("stripe");
    const api = new Stripe(env.STRIPE_API_KEY, { maxNetworkRetries: 0 });
    await tried(api.customers.create({ name: "Ada" }));
    await tried(api.customers.update("cus_1", { name: "Bea" }));
    await tried(api.paymentIntents.create({ amount: 1, currency: "usd" }));
    await tried(api.refunds.create({ charge: "ch_1" }));
    await tried(api.subscriptions.cancel("sub_1"));
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
    await tried(client.listTools());
    await tried(client.callTool({ name: "look", arguments: {} }));
    await tried(client.callTool({ name: "wipe", arguments: { all: true } }));
    await tried(client.callTool({ name: "unheard-of", arguments: {} }));
    await client.close();
  },
};
for (const name of process.argv.slice(2)) await sdks[name]();
process.exit(0); // Stripe keeps a connection for a minute

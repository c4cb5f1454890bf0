// A day of an agent at services that remember: emulated.mjs PART. Prints a line for each
// call, and on the other stream what it got that could hold a secret.
const env = process.env;

const line = async (what, call, show = (x) => x) => {
  try {
    const got = await call();
    console.log(what, show(got));
    return got;
  } catch (e) {
    console.log(what, "refused:", e.message.split(". ")[0]);
    console.error(what, e.message);
  }
};

const octokit = async (auth, authStrategy) => {
  const { Octokit } = await import("@octokit/rest");
  const quiet = { debug() {}, info() {}, warn() {}, error() {} };
  return new Octokit({ auth, log: quiet, ...(authStrategy && { authStrategy }) }).rest;
};

const web = { owner: "acme", repo: "web" };
const other = { owner: "acme", repo: "other" };
const found = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

const parts = {
  // with a token of a person's
  async github() {
    const api = await octokit(env.GITHUB_TOKEN);
    const issue = await line("issue", () => api.issues.create({ ...web, title: "It is slow" }), ({ data }) => `#${data.number} by ${data.user.login}`);
    await line("comment", () => api.issues.createComment({ ...web, issue_number: issue.data.number, body: "So it is." }), ({ data }) => data.body);
    await line("list", () => api.issues.listForRepo(web), ({ data }) => data.map((i) => `${i.title}, ${i.comments} comments`).join());
    await line("deletion", () => api.repos.delete(web));
    await line("another's", () => api.issues.create({ ...other, title: "It is slow" }));
    await line("found", async () => (await octokit(found)).issues.listForRepo(web));
  },
  // with tokens that the proxy gets for an app
  async app() {
    const api = await octokit(env.GITHUB_TOKEN);
    await line("issue", () => api.issues.create({ ...web, title: "It was an app" }), ({ data }) => `by ${data.user.login}`);
    await line("another's", () => api.issues.create({ ...other, title: "It was an app" }));
  },
  // as an app that signs its statements and gets its tokens by itself
  async octokit() {
    const { createAppAuth } = await import("@octokit/auth-app");
    const app = { appId: env.GITHUB_APP_ID, privateKey: env.GITHUB_APP_PRIVATE_KEY };
    const api = await octokit({ ...app, installationId: env.GITHUB_APP_INSTALLATION_ID }, createAppAuth);
    await line("issue", () => api.issues.create({ ...web, title: "It was Octokit" }), ({ data }) => `by ${data.user.login}`);
    await line("app", () => api.apps.getAuthenticated(), ({ data }) => data.slug);
    await line("deletion", () => api.repos.delete(web));
    const auth = await createAppAuth(app)({ type: "installation", installationId: env.GITHUB_APP_INSTALLATION_ID });
    console.log("token", auth.token === env.GITHUB_TOKEN, Object.entries(auth.permissions).join(), auth.repositorySelection);
    console.error("got", JSON.stringify(auth));
    await line("other installation", () => createAppAuth(app)({ type: "installation", installationId: 101 }));
  },
  // with tokens that the agent itself has GitHub make for an installation
  async installation() {
    const app = await octokit(env.GITHUB_TOKEN);
    const { data } = await line("token", () => app.apps.createInstallationAccessToken({ installation_id: 100, repositories: ["web"], permissions: { issues: "write" } }), ({ data }) => Object.keys(data).sort().join());
    console.error("got", JSON.stringify(data));
    const api = await octokit(data.token);
    await line("issue", () => api.issues.create({ ...web, title: "It was an installation" }), ({ data }) => data.title);
    await line("list", () => api.issues.listForRepo({ ...web, state: "all" }), ({ data }) => data.map((i) => i.title).sort().join());
    await line("app", () => app.apps.getAuthenticated(), ({ data }) => data.slug);
    await line("deletion", () => api.repos.delete(web));
  },
  async slack() {
    const { WebClient } = await import("@slack/web-api");
    const api = new WebClient(env.SLACK_BOT_TOKEN, { retryConfig: { retries: 0 }, logLevel: "error" });
    const me = await line("me", () => api.auth.test(), (r) => `${r.user} of ${r.team}`);
    const { channels } = await line("channels", () => api.conversations.list(), (r) => r.channels.map((c) => c.name).sort().join());
    const channel = channels.find((c) => c.name === "general").id;
    const said = await line("message", () => api.chat.postMessage({ channel, text: "It is slow" }), (r) => r.message.text);
    await line("history", () => api.conversations.history({ channel }), (r) => r.messages.map((m) => m.text).join());
    await line("deletion", () => api.chat.delete({ channel, ts: said.ts }));
    await line("beyond its scopes", () => api.reactions.add({ channel, timestamp: said.ts, name: "eyes" }));
    await line("found", () => new WebClient("xoxb-123456789012-123456789012-abcdefghijklmnopqrstuvwx", { retryConfig: { retries: 0 }, logLevel: "error" }).chat.postMessage({ channel, text: "x" }));
    console.error("got", JSON.stringify(me));
  },
  // with the file in which Google's libraries look
  async google() {
    const { gmail, auth } = await import("@googleapis/gmail");
    const api = gmail({ version: "v1", auth: new auth.GoogleAuth({ scopes: "https://www.googleapis.com/auth/gmail.modify" }) });
    await mailbox(api);
    const stray = new auth.OAuth2();
    stray.setCredentials({ access_token: "ya29.0123456789abcdefghijABCDEFGHIJ0123456789" });
    await line("found", () => gmail({ version: "v1", auth: stray }).users.labels.list({ userId: "me" }));
  },
  // with a code that a person got for the agent, and with what comes of it
  async code() {
    const { gmail, auth } = await import("@googleapis/gmail");
    const client = new auth.OAuth2("mailer", env.OAUTH_SECRET, "https://app.example.com/back");
    const { tokens } = await line("code", () => client.getToken(env.CODE), ({ tokens }) => Object.keys(tokens).sort().join());
    console.error("got", JSON.stringify(tokens));
    client.setCredentials(tokens);
    await mailbox(gmail({ version: "v1", auth: client }));
    client.setCredentials({ refresh_token: tokens.refresh_token });
    await line("refresh", () => client.getAccessToken(), ({ token }) => `${token !== tokens.access_token}`);
    console.error("got", JSON.stringify(client.credentials));
    await line("again", () => gmail({ version: "v1", auth: client }).users.labels.list({ userId: "me" }), inbox);
    await line("code again", () => client.getToken(env.CODE));
  },
};

const inbox = ({ data }) => data.labels.find((l) => l.id === "INBOX")?.name;

async function mailbox(api) {
  const { data } = await line("draft", () => api.users.drafts.create({ userId: "me", requestBody: { message: { raw: Buffer.from("To: bob@example.com\r\nSubject: slow\r\n\r\nIt is.").toString("base64url") } } }), ({ data }) => (data.id ? "kept" : ""));
  await line("labels", () => api.users.labels.list({ userId: "me" }), inbox);
  await line("sending", () => api.users.drafts.send({ userId: "me", requestBody: { id: data.id } }));
}

await parts[process.argv[2]]();
process.exit();

// One call of one SDK: node clients.mjs CLIENT allowed|denied
// What came back is printed; an error is printed by its message, as people see it.
import https from "node:https";
import { Octokit } from "@octokit/rest";
import { WebClient } from "@slack/web-api";
import OpenAI from "openai";
import Stripe from "stripe";

const github = (mode) => [
  "https://api.github.com/repos/acme/web" + (mode === "denied" ? "" : "/issues"),
  { method: mode === "denied" ? "DELETE" : "GET", headers: { Authorization: "Bearer " + process.env.GITHUB_TOKEN } },
];

const clients = {
  async fetch(mode) {
    return (await fetch(...github(mode))).text();
  },
  https(mode) {
    return new Promise((resolve, reject) => {
      const request = https.request(...github(mode), (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (part) => (text += part)).on("end", () => resolve(text));
      });
      request.on("error", reject).end();
    });
  },
  async octokit(mode) {
    const api = new Octokit({ auth: process.env.GITHUB_TOKEN, log: { debug() {}, info() {}, warn() {}, error() {} } });
    const repo = { owner: "acme", repo: "web" };
    if (mode === "denied") return api.rest.repos.delete(repo);
    return (await api.rest.issues.create({ ...repo, title: "from octokit" })).data.title;
  },
  async slack(mode) {
    const api = new WebClient(process.env.SLACK_BOT_TOKEN, { retryConfig: { retries: 0 } });
    if (mode === "denied") return api.chat.delete({ channel: "C1", ts: "1.0" });
    return (await api.chat.postMessage({ channel: "C1", text: "hi" })).ts;
  },
  async openai(mode) {
    const api = new OpenAI({ apiKey: process.env.OPENAI_API_KEY, maxRetries: 0 });
    if (mode === "denied") return api.models.delete("small");
    const stream = await api.chat.completions.create({ model: "small", stream: true, messages: [{ role: "user", content: "hi" }] });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0].delta.content;
    return text;
  },
  async stripe(mode) {
    const api = new Stripe(process.env.STRIPE_API_KEY, { httpClient: Stripe.createFetchHttpClient(), maxNetworkRetries: 0 });
    if (mode === "denied") return api.customers.del("cus_1");
    return (await api.balance.retrieve()).available[0].amount;
  },
};

const [client, mode] = process.argv.slice(2);
try {
  console.log(await clients[client](mode));
} catch (err) {
  // Slack's client keeps the body of an answer that is not 200 beside its message.
  console.log(err.message, err.body ?? "");
  process.exitCode = 1;
}

// vendors.mjs SERVICE: a vendor's SDK makes one call with what the environment gives it.
const env = process.env;

const calls = {
  async linear() {
    const { LinearClient } = await import("@linear/sdk");
    return (await new LinearClient({ apiKey: env.LINEAR_API_KEY }).viewer).email;
  },
  async notion() {
    const { Client } = await import("@notionhq/client");
    return (await new Client({ auth: env.NOTION_TOKEN }).users.me({})).name;
  },
  async sendgrid() {
    const { Client } = (await import("@sendgrid/client")).default;
    const client = new Client();
    client.setApiKey(env.SENDGRID_API_KEY);
    const [, body] = await client.request({ method: "GET", url: "/v3/scopes" });
    return body.scopes.join();
  },
  async msgraph() {
    const { Client } = await import("@microsoft/microsoft-graph-client");
    return (await Client.init({ authProvider: (done) => done(null, env.MSGRAPH_TOKEN) }).api("/me").get()).displayName;
  },
  async digitalocean() {
    const { createApiClient } = await import("dots-wrapper");
    return (await createApiClient({ token: env.DIGITALOCEAN_TOKEN }).account.getAccount()).data.account.email;
  },
  async gemini() {
    const { GoogleGenAI } = await import("@google/genai");
    return (await new GoogleGenAI({ apiKey: env.GEMINI_API_KEY }).models.generateContent({ model: "gemini-flash", contents: "Who are you?" })).text;
  },
};

console.log(await calls[process.argv[2]]());
process.exit();

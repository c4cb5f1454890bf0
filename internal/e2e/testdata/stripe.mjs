// A day of an agent at Stripe, against Stripe's own mock, which checks every request by
// Stripe's description. Prints a line for each call.
import Stripe from "stripe";

const api = new Stripe(process.env.STRIPE_API_KEY, { maxNetworkRetries: 0 });
const line = async (what, call, show) => {
  try {
    console.log(what, show(await call()));
  } catch (e) {
    console.log(what, e.type, e.statusCode);
  }
};
await line("balance", () => api.balance.retrieve(), (b) => b.object);
await line("customer", () => api.customers.create({ name: "Ada", metadata: { team: "x&_=y" }, address: { city: "Zürich", country: "CH" } }), (c) => c.object);
await line("mistaken", () => api.customers.create({ nmae: "Ada" }), (c) => c.object);
await line("deletion", () => api.customers.del("cus_1"), (c) => c.deleted);
await line("connected", () => api.customers.create({ name: "Ada" }, { stripeAccount: "acct_1" }), (c) => c.object);
process.exit(0); // Stripe keeps a connection for a minute

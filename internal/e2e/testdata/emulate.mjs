// Stateful emulators of services, on free ports of loopback: emulate.mjs SEED, which is JSON
// that says what each starts with. Prints where they listen, and ends with its input.
import { createEmulator } from "emulate";

const seed = JSON.parse(process.argv[2]);
const at = {};
for (const service of ["github", "google", "slack"]) {
  at[service] = (await createEmulator({ service, port: 0, seed })).url;
}
console.log(JSON.stringify(at));
process.stdin.on("end", () => process.exit(0)).resume();

// An MCP client of another make, driven by a test: commands come as JSON lines on
// standard input, and all that the client sees goes to standard output.
//
// Usage: client.mjs PROGRAM [ARGUMENT...]
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";

const [command, ...args] = process.argv.slice(2);
const say = (event) => process.stdout.write(JSON.stringify(event) + "\n");

const transport = new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" });
const client = new Client({ name: "conformance", version: "1" });
client.setNotificationHandler(ToolListChangedNotificationSchema, async () => say({ event: "list_changed" }));
client.onclose = () => say({ event: "closed" });

const running = new Map();

const operations = {
  async list() {
    say({ event: "tools", ...(await client.listTools()) });
  },
  async call({ id, name, arguments: given }) {
    const abort = new AbortController();
    running.set(id, abort);
    const onprogress = (p) => say({ event: "progress", id, ...p });
    try {
      const options = { onprogress, signal: abort.signal, resetTimeoutOnProgress: true };
      say({ event: "result", id, result: await client.callTool({ name, arguments: given }, undefined, options) });
    } catch (error) {
      say({ event: "error", id, message: String(error.message), code: error.code });
    }
    running.delete(id);
  },
  async cancel({ id }) {
    running.get(id)?.abort("no longer wanted");
  },
  async close() {
    await client.close();
  },
};

try {
  await client.connect(transport);
} catch (error) {
  say({ event: "refused", message: String(error.message) });
  process.exit(1);
}
say({
  event: "ready",
  server: client.getServerVersion(),
  capabilities: client.getServerCapabilities(),
  instructions: client.getInstructions(),
});
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { op, ...rest } = JSON.parse(line);
  operations[op](rest).catch((error) => say({ event: "error", message: String(error.message) }));
});
lines.on("close", () => client.close());

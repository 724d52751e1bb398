// client.mjs NAME URL: follows a stream by one client and prints each event as a line of JSON, and
// {"end": why} when the client gives up.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const [name, url] = process.argv.slice(2);
const say = (fields) => process.stdout.write(JSON.stringify(fields) + "\n");
const heard = (event, data) => say({ event, data });
const TYPES = ["message", "receipt.updated", "read_mark.updated"];
// Timers of some clients do not keep a process alive, and a server has other work.
setInterval(() => {}, 1_000);

/** Listens to a client with the interface of the browser. */
function listen(source) {
  for (const type of TYPES) source.addEventListener(type, ({ data }) => heard(type, data));
  source.addEventListener("error", (error) => {
    if (source.readyState === 2) say({ end: `closed, ${error.code ?? error.status ?? error.message}` });
  });
}

/**
 * Runs a function in a page of the service's origin in Chromium. The page has the function `say`, our own client as the module
 * `/client/index.js`, and further scripts.
 */
async function inBrowser(follow, { scripts = [], more = {} } = {}) {
  const { chromium } = await import("playwright-core");
  const browser = await chromium.launch({ executablePath: process.env.SSE_CHROMIUM, args: ["--no-sandbox"] });
  const page = await browser.newPage();
  await page.route("**/client/*.js", async (route) => {
    const file = new URL(route.request().url().split("/client/")[1], `file://${process.env.SSE_OWN_CLIENT}`);
    await route.fulfill({ contentType: "text/javascript", body: await readFile(file) });
  });
  await page.exposeFunction("say", say);
  await page.goto(new URL("/livez", url).href);
  for (const path of scripts) await page.addScriptTag({ path });
  await page.evaluate(follow, { url, types: TYPES, ...more });
}

/** Follows by our own client, in Node or in a page. */
function own(ReceiptsClient, url, say) {
  const client = new ReceiptsClient({ baseURL: new URL(url).origin });
  client.on("onRecvMessageReadReceipts", (updates) =>
    updates.forEach((update) => say({ event: "receipt.updated", data: JSON.stringify(update) })),
  );
  client.on("onConnectFailed", (error, retryInMs) =>
    say(retryInMs === undefined ? { end: String(error) } : { failed: String(error) }),
  );
  client.subscribe({ conversationID: "g1" });
}

/** Follows by fetch-event-source, with these callbacks of its own. */
async function fetchEvents(callbacks) {
  // It is for pages: what it needs of one.
  globalThis.window = globalThis;
  globalThis.document = { addEventListener() {}, removeEventListener() {}, hidden: false };
  const { fetchEventSource } = require("@microsoft/fetch-event-source");
  await fetchEventSource(url, {
    openWhenHidden: true,
    onmessage: ({ event, data }) => heard(event, data),
    ...callbacks,
  });
  say({ end: "resolved" });
}

const require = createRequire(import.meta.url);
const clients = {
  "receipts-client": async () => own((await import(process.env.SSE_OWN_CLIENT)).ReceiptsClient, url, say),
  "receipts-client in Chromium": () =>
    inBrowser(
      async ({ url, own }) => {
        const { ReceiptsClient } = await import("/client/index.js");
        new Function(`return ${own}`)()(ReceiptsClient, url, window.say);
      },
      { more: { own: own.toString() } },
    ),
  // The code of docs/streams.md, word for word.
  "EventSource of the docs": async () => {
    const text = await readFile(process.env.SSE_DOCS, "utf8");
    const code = text.split("```js\n")[1].split("```")[0];
    await inBrowser(
      async ({ url, code }) => {
        const { ReceiptsClient } = await import("/client/index.js");
        const client = new ReceiptsClient({ baseURL: new URL(url).origin });
        const show = (update) => window.say({ event: "receipt.updated", data: JSON.stringify(update) });
        new Function("client", "show", "queryShownReceipts", `${code}\nfollow();`)(client, show, () => {});
      },
      { more: { code } },
    );
  },
  "eventsource 5": async () => listen(new (await import("eventsource")).EventSource(url)),
  "eventsource 4": async () => listen(new (await import("eventsource4")).EventSource(url)),
  "eventsource-client": async () => {
    const { createEventSource } = await import("eventsource-client");
    createEventSource({ url, onMessage: ({ event, data }) => heard(event ?? "message", data) });
  },
  "fetch-event-source": () => fetchEvents({}),
  "fetch-event-source with onclose": () =>
    fetchEvents({
      onclose() {
        throw new Error("the service ended the stream");
      },
    }),
  "Chromium EventSource": () =>
    inBrowser(({ url, types }) => {
      const source = new EventSource(url);
      for (const type of types) source.addEventListener(type, ({ data }) => say({ event: type, data }));
      source.onerror = () => source.readyState === 2 && say({ end: "readyState 2" });
    }),
  "event-source-polyfill": () =>
    inBrowser(
      ({ url, types }) => {
        const source = new EventSourcePolyfill(url, { lastEventIdQueryParameterName: "since" });
        for (const type of types) source.addEventListener(type, ({ data }) => say({ event: type, data }));
        source.onerror = () => source.readyState === 2 && say({ end: "readyState 2" });
      },
      { scripts: [require.resolve("event-source-polyfill")] },
    ),
};
clients[name]().catch((error) => say({ end: String(error) }));

// The check of tests/tools/inspector/run.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SECRET = "0123456789abcdef0123456789abcdef";
const { values: options, positionals } = parseArgs({
    allowPositionals: true,
    options: { people: { type: "string", default: "2000" }, screenshots: { type: "string" } },
});
const [binary, executablePath] = positionals;
const people = Number(options.people);
assert(Number.isInteger(people) && people >= 10, "--people: a number from 10");

const work = mkdtempSync(join(tmpdir(), "inspector-"));
const running = [];
process.on("exit", () => {
    running.forEach((child) => child.kill("SIGKILL"));
    rmSync(work, { recursive: true, force: true });
});

/** Starts a service with flags, and returns its URL. */
async function serve(name, ...flags) {
    const child = spawn(
        binary,
        ["serve", "--json", "--http-listen", "127.0.0.1:0", "--data-dir", join(work, name), ...flags],
        {
            stdio: ["ignore", "pipe", "inherit"],
            env: { ...process.env, RECEIPTS_LOG: "error" },
        },
    );
    running.push(child);
    for await (const line of createInterface(child.stdout)) return JSON.parse(line).http;
    throw new Error("the service ended before it was ready");
}

/** Posts events as a backend does, not by the page. */
async function post(url, events, headers = {}) {
    for (let first = 0; first < events.length; first += 500) {
        const answer = await fetch(`${url}/v1/events`, {
            method: "POST",
            headers: { "Content-Type": "application/json", ...headers },
            body: JSON.stringify(events.slice(first, first + 500)),
        });
        assert.equal(answer.status, 202, await answer.text());
    }
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

/** Opens a page that fails the check by an error, or by a request to another host. */
async function open(url, { colorScheme = "light", width = 1200, height = 900 } = {}) {
    const context = await browser.newContext({ colorScheme, viewport: { width, height } });
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    page.wrong = [];
    page.on("pageerror", (error) => page.wrong.push(error.message));
    page.on(
        "console",
        (message) => message.type() === "error" && !message.text().includes("401") && page.wrong.push(message.text()),
    );
    page.on("request", (request) => request.url().startsWith(url) || page.wrong.push(`asked ${request.url()}`));
    await page.goto(`${url}/`);
    return page;
}

async function done(page, name) {
    // A policy against foreign scripts is a part of the page, so axe comes in by the debugger.
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    assert.deepEqual(
        violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]),
        [],
        `axe, ${name}`,
    );
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert(overflow <= 0, `${name} is ${overflow} px too wide`);
    assert.deepEqual(page.wrong, [], name);
    if (options.screenshots) await page.screenshot({ path: join(options.screenshots, `${name}.png`), fullPage: true });
    console.log(`${name}: as it should be`);
}

const shows = (page, text) => page.getByText(text, { exact: true }).first().waitFor();
const button = (page, name) => page.getByRole("button", { name, exact: true }).first();

/** Sends a message by the keyboard. */
async function send(page, text) {
    await page.getByRole("textbox", { name: "Message" }).fill(text);
    await page.keyboard.press("Enter");
    await page.locator(".own .text", { hasText: text }).waitFor();
}

async function playground(url, colorScheme, headers = {}, started = undefined) {
    const page = started ?? (await open(url, { colorScheme }));
    await send(page, "Lunch at twelve?");
    await shows(page, "✓ Read by 0 of 4");
    await button(page, "Mark as read").click();
    await shows(page, "✓ Read by 1 of 4");
    // A read that another program posts comes by the stream.
    const conversation = decodeURIComponent(new URL(page.url()).hash.split("/")[2]);
    const kept = await page.evaluate((id) => JSON.parse(sessionStorage.getItem(`receipts-${id}`)), conversation);
    const message_ids = [kept.messages[0].id];
    await post(url, [{ type: "message.read", conversation_id: conversation, reader_id: "dave", message_ids }], headers);
    await shows(page, "✓ Read by 2 of 4");
    await page.getByLabel("Member", { exact: true }).selectOption("carol");
    await page.getByLabel("Read hidden", { exact: true }).check();
    await page.locator(".bar button").first().click();
    await shows(page, "Not for you, or read hidden");
    await page.getByLabel("Member", { exact: true }).selectOption("erin");
    await page.getByLabel("Read hidden", { exact: true }).uncheck();
    await button(page, "Leave the group").click();
    await shows(page, "You left before you read it");
    await button(page, "✓ Read by 2 of 4").click();
    await page.getByRole("tab", { name: "Departed 1" }).click();
    await page.getByRole("tabpanel").getByText("erin").waitFor();
    await page.getByText("1 person read hidden, and no list names them.").waitFor();
    await done(page, `playground-lists-${colorScheme}`);
    await button(page, "Close").click();
    await send(page, "A second one");
    await shows(page, "✓ Read by 0 of 3");
    await done(page, `playground-${colorScheme}`);
    await page.reload();
    await shows(page, "✓ Read by 2 of 4");
    await button(page, "Recall").click();
    await shows(page, "This message was recalled.");
    await page.context().close();
}

async function message(url, colorScheme, size) {
    const page = await open(url, { colorScheme, ...size });
    await page.getByRole("link", { name: "Message" }).click();
    await page.getByLabel("Conversation").fill("hall");
    await page.getByRole("textbox", { name: "Message" }).fill("m1");
    await button(page, "Show").click();
    const read = (count) =>
        page
            .locator(".headline", {
                hasText: `${count.toLocaleString("en")} of ${people.toLocaleString("en")} have read it`,
            })
            .waitFor();
    const before = Number((await page.locator(".headline strong").textContent()).replaceAll(",", ""));
    await page.getByRole("tab", { name: /^Read / }).waitFor();
    await read(before);
    const readers = Array.from({ length: 250 }, (_, at) => `p${String(before + at).padStart(6, "0")}`).slice(
        0,
        people - before,
    );
    await post(
        url,
        readers.map((reader_id) => ({ type: "message.read", conversation_id: "hall", reader_id, message_ids: ["m1"] })),
    );
    await read(before + readers.length);
    // The field has each person once, in the order of the ids.
    const canvas = page.locator("canvas");
    assert.equal(
        await canvas.getAttribute("aria-label"),
        `${(before + readers.length).toLocaleString("en")} of ${people.toLocaleString("en")} dots are filled`,
    );
    await canvas.hover({ position: { x: 0.5, y: 0.5 } });
    await shows(page, "p000000: read");
    await page.getByRole("tab", { name: /^Unread / }).click();
    await page
        .locator(".people")
        .getByText(`p${String(before + readers.length).padStart(6, "0")}`)
        .waitFor();
    await button(page, "Next").click();
    await shows(page, "Page 2");
    await page
        .locator(".people")
        .getByText(`p${String(before + readers.length + 50).padStart(6, "0")}`)
        .waitFor();
    await page.locator(".traffic .update").first().waitFor();
    await done(page, `message-${colorScheme}-${size?.width ?? 1200}`);
    await page.context().close();
}

async function operations(url, size) {
    const page = await open(url, { colorScheme: "dark", ...size });
    await page.getByRole("link", { name: "Operations" }).click();
    await page.getByRole("row", { name: /^0 owner/ }).waitFor();
    await page.locator(".chart polyline[points]").first().waitFor({ state: "attached" });
    await done(page, `operations-${size?.width ?? 1200}`);
    await page.context().close();
}

function token(claims) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const now = Math.floor(Date.now() / 1000);
    const issued = { iss: "test", aud: "receipts", tenant: "default", exp: now + 600, ...claims };
    const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(issued)}`;
    return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}

async function tokens() {
    writeFileSync(join(work, "secret"), SECRET, { mode: 0o600 });
    const url = await serve(
        "tokens",
        "--auth-secret-file",
        join(work, "secret"),
        "--auth-issuer",
        "test",
        "--auth-audience",
        "receipts",
    );
    const bearer = token({ scope: "receipts:write receipts:members" });
    const page = await open(url, { colorScheme: "light" });
    await page.getByLabel("Access token").fill(bearer);
    await button(page, "Use this token").click();
    await page.locator(".traffic .event").first().waitFor();
    await playground(url, "with-tokens", { Authorization: `Bearer ${bearer}` }, page);
}

async function off() {
    const url = await serve("off", "--http-inspector=false");
    assert.equal((await fetch(`${url}/`)).status, 404);
}

try {
    const url = await serve("plain", "--projector-update-window-ms", "20");
    const names = Array.from({ length: people }, (_, at) => `p${String(at).padStart(6, "0")}`);
    const joins = [];
    for (let first = 0; first < people; first += 1000) {
        joins.push({ type: "members.changed", conversation_id: "hall", joined: names.slice(first, first + 1000) });
    }
    for (const join of joins) await post(url, [join]);
    await post(url, [
        {
            type: "message.sent",
            conversation_id: "hall",
            message_id: "m1",
            sender_id: "host",
            sent_at_ms: Date.now(),
            need_read_receipt: true,
        },
    ]);
    await playground(url, "light");
    await playground(url, "dark");
    await message(url, "light");
    await message(url, "dark", { width: 360, height: 740 });
    await operations(url);
    await operations(url, { width: 360, height: 740 });
    await tokens();
    await off();
} catch (error) {
    console.error(error);
    console.error("again: tests/tools/inspector/run");
    process.exitCode = 1;
} finally {
    await browser.close();
    process.exit(process.exitCode ?? 0);
}

// Calls the documented API with the credential of this tab. Keeps no other state than the token and
// the position of the last write.

const TOKEN = "receipts-token";
let position = "";

/** An answer of the service that is an error (RFC 9457), or no answer at all. */
export class Failure extends Error {
    constructor(problem) {
        const items = (problem.errors ?? []).map(({ pointer, detail }) => `${pointer} ${detail}`);
        super([problem.detail ?? problem.title, ...items].join(": "));
        this.status = problem.status;
        this.code = (problem.type ?? "").split(":").at(-1);
    }
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;
export const setToken = (token) => sessionStorage.setItem(TOKEN, token.trim());

const listeners = new Set();

/** Calls `listener` with each request that this page sends, and each update that it gets. */
export function onTraffic(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
}

const tell = (entry) => listeners.forEach((listener) => listener(entry));

async function send(method, path, body) {
    const headers = { Accept: "application/json" };
    const token = sessionStorage.getItem(TOKEN);
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (position !== "" && path !== "/v1/events") headers["Receipts-Min-Position"] = position;
    let answer;
    try {
        answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch {
        throw new Failure({ title: "The service does not answer" });
    }
    const isJson = (answer.headers.get("content-type") ?? "").includes("json");
    const value = isJson ? await answer.json() : await answer.text();
    if (answer.ok) return value;
    if (answer.status === 401) dispatchEvent(new Event("receipts-unauthenticated"));
    throw new Failure(isJson ? value : { title: `Status ${answer.status}`, status: answer.status });
}

/** Writes events. Later calls wait until the service has folded them. */
export async function post(events) {
    events.forEach((event) => tell({ kind: "event", text: event.type, value: event }));
    const answer = await send("POST", "/v1/events", events);
    position = answer.position;
}

/** Returns the receipt of a message. */
export const receipt = async (conversation_id, message_id) =>
    (await send("POST", "/v1/receipts/query", { conversation_id, message_ids: [message_id] })).receipts[0];

/** Returns a page of a list of members: `{members, next_cursor, receipt}`. */
export const members = (conversation_id, message_id, filter, limit = 100, cursor = null) =>
    send("POST", "/v1/members/list", { conversation_id, message_id, filter, limit, cursor });

/** Returns all members of a list, page by page. */
export async function allMembers(conversation_id, message_id, filter) {
    const all = [];
    for (let cursor = null; ;) {
        const page = await members(conversation_id, message_id, filter, 1000, cursor);
        all.push(...page.members);
        cursor = page.next_cursor;
        if (cursor === null) return all;
    }
}

/** Returns the readiness, or null if it is at another listener (`http.admin_listen`). */
export const readiness = () => fetch("/readyz").then((answer) => (answer.status === 404 ? null : answer.json()));
export const metrics = () => fetch("/metrics").then((answer) => (answer.ok ? answer.text() : ""));

/**
 * Follows the updates of a conversation until the returned function is called. `onUpdate` gets each
 * update, `onState` "open" or "lost". The browser resumes by itself where a connection breaks, and
 * gets nothing twice. A stream that cannot be resumed is opened anew, and `onOpen` asks again.
 */
export function follow(conversation_id, { onUpdate, onState, onOpen }) {
    let source = null;
    let timer = 0;
    let closed = false;
    async function open() {
        let query = `conversation_id=${encodeURIComponent(conversation_id)}`;
        try {
            if (hasToken()) query = `ticket=${(await send("POST", "/v1/updates/tickets", { conversation_id })).ticket}`;
        } catch (error) {
            onState("lost", error);
            timer = setTimeout(open, 5000);
            return;
        }
        if (closed) return;
        source = new EventSource(`/v1/updates?${query}`);
        source.addEventListener("position", () => onState("open"));
        source.addEventListener("open", () => onOpen());
        source.addEventListener("error", () => {
            onState("lost");
            if (source.readyState === EventSource.CLOSED && !closed) timer = setTimeout(open, 2000);
        });
        for (const type of ["receipt.updated", "read_mark.updated"]) {
            source.addEventListener(type, ({ data }) => {
                const update = JSON.parse(data);
                tell({ kind: "update", text: type, value: update });
                onUpdate(update);
            });
        }
    }
    open();
    return () => {
        closed = true;
        clearTimeout(timer);
        source?.close();
    };
}

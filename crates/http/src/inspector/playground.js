// Two phones in one conversation: the sender's, and that of a member who can be changed. All that
// they show of reading comes from the service: receipts by the stream, lists by the API. The texts of
// messages stay in this tab, because the service keeps none.

import { allMembers, follow, onTraffic, post, receipt } from "./api.js";
import { card, clock, fill, h, plural } from "./dom.js";
import { LISTS, memberLists } from "./lists.js";

const SENDER = "alice";
const PEOPLE = ["bob", "carol", "dave", "erin"];
const TRAFFIC_MAX = 40;

/** The part of a conversation that the service does not keep. */
function remembered(id) {
    const key = `receipts-${id}`;
    const value = JSON.parse(sessionStorage.getItem(key) ?? "null") ?? { started: false, messages: [], away: [] };
    return {
        ...value,
        save() {
            sessionStorage.setItem(key, JSON.stringify(this));
        },
    };
}

export function playground(view, [id]) {
    if (!id) {
        location.replace(`#/playground/playground-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`);
        return () => {};
    }
    const kept = remembered(id);
    const receipts = new Map();
    const lists = new Map();
    let reader = PEOPLE[0];
    let hidden = false;
    let listShown = "read";

    const notice = h("p", { className: "notice", role: "alert" });
    const streamState = h("span", { className: "muted" }, "connecting");
    const aliceLog = h("ol", { className: "log", "aria-label": "Alice's messages" });
    const readerLog = h("ol", { className: "log", "aria-label": "The member's messages" });
    const readerBar = h("div", { className: "bar" });
    const traffic = h("ol", { className: "traffic" });
    const lists_ = h("dialog", { className: "sheet", "aria-label": "Who has read the message" });

    /** Does what a button asks for, and shows why where it fails. */
    const attempt = async (action) => {
        try {
            fill(notice);
            await action();
        } catch (error) {
            fill(notice, error.message);
        }
    };

    const about = (fields) => ({ conversation_id: id, ...fields });

    async function refresh(message) {
        const now = await receipt(id, message);
        receipts.set(message, now);
        if (now.status === "ok") {
            const all = await Promise.all(LISTS.map((list) => allMembers(id, message, list)));
            lists.set(message, Object.fromEntries(LISTS.map((list, at) => [list, all[at]])));
        }
        render();
    }

    const refreshAll = () => attempt(() => Promise.all(kept.messages.map((m) => refresh(m.id))));

    async function start() {
        if (kept.started) return;
        await post([{ type: "members.changed", ...about({ joined: [SENDER, ...PEOPLE] }) }]);
        kept.started = true;
        kept.save();
    }

    async function sendMessage(text, need) {
        const message = { id: `m${kept.messages.length + 1}-${Date.now().toString(36)}`, text, sentAt: Date.now() };
        await post([
            {
                type: "message.sent",
                ...about({
                    message_id: message.id,
                    sender_id: SENDER,
                    sent_at_ms: message.sentAt,
                    need_read_receipt: need,
                }),
            },
        ]);
        kept.messages.push(message);
        kept.save();
        await refresh(message.id);
    }

    const read = (message) =>
        post([{ type: "message.read", ...about({ reader_id: reader, message_ids: [message], hidden }) }]).then(() =>
            refresh(message),
        );

    async function readAll() {
        const last = kept.messages.at(-1);
        if (!last) return;
        const body = about({ reader_id: reader, up_to_message_id: last.id, hidden });
        await post([{ type: "conversation.read", ...body }]);
        await refreshAll();
    }

    async function recall(message) {
        await post([{ type: "message.recalled", ...about({ message_id: message }) }]);
        await refresh(message);
    }

    async function leaveOrJoin() {
        const away = kept.away.includes(reader);
        await post([{ type: "members.changed", ...about(away ? { joined: [reader] } : { left: [reader] }) }]);
        kept.away = away ? kept.away.filter((one) => one !== reader) : [...kept.away, reader];
        kept.save();
        await refreshAll();
    }

    const isIn = (message, list) => lists.get(message)?.[list].some((member) => member.user_id === reader);

    function aliceItem(message) {
        const now = receipts.get(message.id);
        const label =
            {
                ok: now?.counts === undefined && `Read by ${now?.read_count} of ${now?.audience_count}`,
                not_requested: "No receipt asked for",
                recalled: "Recalled",
                not_found: "Not found",
                unsupported: "This group type has no receipts",
                forbidden: "This token may not see the receipt",
            }[now?.status] ?? "…";
        const isOk = now?.status === "ok";
        return h(
            "li",
            { className: "own" },
            h("p", { className: "text" }, message.text),
            h(
                "p",
                { className: "meta" },
                h("time", {}, clock(message.sentAt)),
                isOk
                    ? h(
                          "button",
                          { className: now.all_read ? "counts all" : "counts", onclick: () => openLists(message) },
                          now.all_read ? "✓✓ " : "✓ ",
                          label,
                      )
                    : h("span", { className: "muted" }, label),
                isOk &&
                    h(
                        "a",
                        { href: `#/message/${encodeURIComponent(id)}/${encodeURIComponent(message.id)}` },
                        "Details",
                    ),
                isOk && h("button", { className: "quiet", onclick: () => attempt(() => recall(message.id)) }, "Recall"),
            ),
        );
    }

    function readerItem(message) {
        const now = receipts.get(message.id);
        const state =
            now?.status === "recalled"
                ? "Recalled"
                : now?.status !== "ok"
                  ? "No receipt"
                  : isIn(message.id, "read")
                    ? "You read it"
                    : isIn(message.id, "departed")
                      ? "You left before you read it"
                      : isIn(message.id, "unread")
                        ? null
                        : "Not for you, or read hidden";
        return h(
            "li",
            { className: state === null ? "other new" : "other" },
            h("p", { className: "from" }, SENDER),
            h("p", { className: "text" }, now?.status === "recalled" ? "This message was recalled." : message.text),
            h(
                "p",
                { className: "meta" },
                h("time", {}, clock(message.sentAt)),
                state === null
                    ? h(
                          "button",
                          { onclick: () => attempt(() => read(message.id)) },
                          hidden ? "Read hidden" : "Mark as read",
                      )
                    : h("span", { className: "muted" }, state),
            ),
        );
    }

    function openLists(message) {
        fill(
            lists_,
            h("h3", {}, message.text),
            memberLists({
                shown: listShown,
                count: (list) => lists.get(message.id)?.[list].length ?? 0,
                people: lists.get(message.id)?.[listShown] ?? [],
                className: "people",
                onChoose: (list) => {
                    listShown = list;
                    openLists(message);
                },
            }),
            hiddenNote(message),
            h("button", { onclick: () => lists_.close() }, "Close"),
        );
        lists_.dataset.message = message.id;
        if (!lists_.open) lists_.showModal();
    }

    function hiddenNote(message) {
        const count = receipts.get(message.id)?.hidden_count ?? 0;
        return (
            count > 0 &&
            h("p", { className: "muted" }, `${plural(count, "person")} read hidden, and no list names them.`)
        );
    }

    function render() {
        const atEnd = (list) => list.scrollHeight - list.scrollTop - list.clientHeight < 40;
        for (const [list, item] of [
            [aliceLog, aliceItem],
            [readerLog, readerItem],
        ]) {
            const follows = atEnd(list);
            const focused = list.contains(document.activeElement)
                ? [...list.querySelectorAll("button, a")].indexOf(document.activeElement)
                : -1;
            fill(
                list,
                kept.messages.length === 0
                    ? h("li", { className: "empty" }, "No message yet: send one on Alice's phone.")
                    : kept.messages.map(item),
            );
            if (follows) list.scrollTop = list.scrollHeight;
            if (focused >= 0) list.querySelectorAll("button, a")[focused]?.focus();
        }
        const away = kept.away.includes(reader);
        fill(
            readerBar,
            h(
                "button",
                { onclick: () => attempt(readAll), disabled: away || kept.messages.length === 0 },
                "Open the chat (read all)",
            ),
            h(
                "button",
                { className: "quiet", onclick: () => attempt(leaveOrJoin) },
                away ? "Join again" : "Leave the group",
            ),
        );
        const shown = kept.messages.find((message) => message.id === lists_.dataset.message);
        if (lists_.open && shown) openLists(shown);
    }

    const text = h("input", {
        id: "text",
        name: "text",
        placeholder: "Message",
        autocomplete: "off",
        required: true,
        maxLength: 200,
    });
    const need = h("input", { type: "checkbox", id: "need", checked: true });
    const composer = h(
        "form",
        {
            className: "composer",
            onsubmit: (event) => {
                event.preventDefault();
                const words = text.value.trim();
                if (words === "") return;
                text.value = "";
                attempt(() => sendMessage(words, need.checked));
            },
        },
        h("label", { for: "text", className: "hidden" }, "Message"),
        text,
        h("button", {}, "Send"),
        h("label", { for: "need", className: "check" }, need, "Ask for a read receipt"),
    );

    const who = h(
        "select",
        {
            id: "who",
            onchange: () => {
                reader = who.value;
                render();
            },
        },
        PEOPLE.map((person) => h("option", { value: person }, person)),
    );
    const hide = h("input", {
        type: "checkbox",
        id: "hide",
        onchange: () => {
            hidden = hide.checked;
            render();
        },
    });

    view.append(
        h("h2", { className: "hidden" }, "Playground"),
        h(
            "p",
            { className: "lead" },
            "Send a message as Alice, then read it on the other phone. Each change is an event in the log, and comes back " +
                "by the stream of updates.",
        ),
        notice,
        h(
            "div",
            { className: "phones" },
            h(
                "section",
                { className: "phone", "aria-labelledby": "phone-alice" },
                h(
                    "header",
                    {},
                    h("h3", { id: "phone-alice" }, "Alice"),
                    h("span", { className: "muted" }, `and ${PEOPLE.length} more`),
                ),
                aliceLog,
                composer,
            ),
            h(
                "section",
                { className: "phone", "aria-labelledby": "phone-reader" },
                h(
                    "header",
                    {},
                    h("h3", { id: "phone-reader" }, h("label", { for: "who", className: "hidden" }, "Member"), who),
                    h("label", { for: "hide", className: "check" }, hide, "Read hidden"),
                ),
                readerLog,
                readerBar,
            ),
        ),
        card("Events and updates", h("p", { className: "muted" }, `Conversation ${id}, stream `, streamState), traffic),
        lists_,
    );

    const stopTraffic = onTraffic(({ kind, text: name, value }) => {
        traffic.prepend(
            h(
                "li",
                { className: kind },
                h(
                    "details",
                    {},
                    h(
                        "summary",
                        {},
                        h("time", {}, clock(Date.now())),
                        kind === "event" ? " → " : " ← ",
                        h("strong", {}, name),
                        " ",
                        summary(value),
                    ),
                    h("pre", { tabIndex: 0 }, JSON.stringify(value, null, 2)),
                ),
            ),
        );
        while (traffic.children.length > TRAFFIC_MAX) traffic.lastChild.remove();
    });

    let stopStream = () => {};
    attempt(async () => {
        await start();
        stopStream = follow(id, {
            onUpdate: (update) => update.message_id !== undefined && attempt(() => refresh(update.message_id)),
            onOpen: refreshAll,
            onState: (state, error) =>
                fill(streamState, state === "open" ? "open" : `lost, connecting again ${error?.message ?? ""}`),
        });
    });
    render();
    return () => {
        stopTraffic();
        stopStream();
    };
}

/** Returns an event or update in a few words. */
function summary(value) {
    if (value.type === "receipt.updated") {
        return value.status === "ok"
            ? `read by ${value.read_count} of ${value.audience_count}, version ${value.version}`
            : value.status;
    }
    const people = [...(value.joined ?? []).map((one) => `+${one}`), ...(value.left ?? []).map((one) => `−${one}`)];
    return people.length > 0
        ? people.join(" ")
        : [value.sender_id ?? value.reader_id, value.hidden && "(hidden)"].filter(Boolean).join(" ");
}

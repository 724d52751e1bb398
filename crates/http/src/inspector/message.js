// One message: its receipt, its audience as a field of dots, its lists page by page as the API gives
// them, and its updates as they come.

import { allMembers, follow, members, receipt } from "./api.js";
import { Dots } from "./dots.js";
import { card, clock, fill, h, number, plural } from "./dom.js";
import { memberLists } from "./lists.js";

const PAGE = 50;
const UPDATES_MAX = 50;
const POINT = "Point at a dot for its name.";
/** Beyond this audience, the page does not ask for all names at once. */
const DOTS_MAX = 200_000;

export function message(view, [conversation, id]) {
    const field = (name, label, value) =>
        h(
            "div",
            {},
            h("label", { for: name }, label),
            h("input", { id: name, name, required: true, value: value ?? "", maxLength: 128, autocomplete: "off" }),
        );
    const form = h(
        "form",
        {
            className: "ask",
            onsubmit: (event) => {
                event.preventDefault();
                const values = new FormData(form);
                const ids = ["conversation", "message"].map((name) => encodeURIComponent(values.get(name)));
                location.hash = `#/message/${ids.join("/")}`;
            },
        },
        field("conversation", "Conversation", conversation),
        field("message", "Message", id),
        h("button", {}, "Show"),
    );
    view.append(h("h2", { className: "hidden" }, "Message"), form);
    if (!conversation || !id) {
        view.append(h("p", { className: "lead" }, "Shows who has read one message, and moves as people read it."));
        return () => {};
    }

    const notice = h("p", { className: "notice", role: "alert" });
    const headline = h("p", { className: "headline", "aria-live": "polite" });
    const figures = h("dl", { className: "figures" });
    const canvas = h("canvas", { role: "img", "aria-label": "The audience" });
    const pointed = h("p", { className: "muted pointed" }, POINT);
    const list = h("div", {});
    const updates = h("ol", { className: "traffic" });
    const dots = new Dots(canvas);
    let now = null;
    let shown = "read";
    let cursors = [null];
    let stale = false;

    canvas.addEventListener("pointermove", (event) => {
        const dot = dots.at(event.offsetX, event.offsetY);
        fill(pointed, dot === null ? POINT : `${dot.name}: ${dot.kind === "unnamed" ? "not in a list" : dot.kind}`);
    });

    const attempt = async (action) => {
        try {
            await action();
            fill(notice);
        } catch (error) {
            fill(notice, error.message);
        }
    };

    function showReceipt() {
        if (now.status !== "ok") {
            const said =
                {
                    not_found: "There is no such message",
                    not_requested: "The sender asked for no receipt",
                    unsupported: "The group type had no receipts when it was sent",
                    recalled: "The message was recalled",
                    forbidden: "This token may not see the receipt",
                }[now.status] ?? now.status;
            fill(headline, said);
            fill(figures);
            return;
        }
        fill(headline, h("strong", {}, number(now.read_count)), ` of ${number(now.audience_count)} have read it`);
        const pairs = [
            ["Unread", number(now.unread_count)],
            ["Hidden", number(now.hidden_count)],
            ["Departed", number(now.departed_count)],
            ["All read", now.all_read ? "yes" : "no"],
            ["Sender", now.sender_id ?? "erased"],
            ["Kind", now.kind],
            ["Last read", now.last_read_at_ms ? clock(now.last_read_at_ms) : "–"],
            ["Version", number(now.version)],
        ];
        fill(
            figures,
            pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
        );
        canvas.setAttribute("aria-label", `${number(now.read_count)} of ${number(now.audience_count)} dots are filled`);
    }

    async function load() {
        now = await receipt(conversation, id);
        showReceipt();
        view.dataset.status = now.status;
        if (now.status !== "ok") return;
        if (now.audience_count <= DOTS_MAX) {
            // A person moves from unread to the others only. So nobody is missed if unread is walked first.
            const ids = {};
            for (const one of ["unread", "departed", "read"]) {
                ids[one] = (await allMembers(conversation, id, one)).map((member) => member.user_id);
            }
            dots.show(ids, now.audience_count);
        } else {
            fill(pointed, `More than ${number(DOTS_MAX)} people are too many for dots.`);
        }
        await showList();
    }

    async function showList() {
        const page = await members(conversation, id, shown, PAGE, cursors.at(-1));
        stale = false;
        const turn = (label, disabled, action) =>
            h(
                "button",
                {
                    disabled,
                    onclick: () => {
                        action();
                        attempt(showList);
                    },
                },
                label,
            );
        fill(
            list,
            memberLists({
                shown,
                count: (one) => now[`${one}_count`],
                people: page.members,
                className: "people columns",
                onChoose: (one) => {
                    shown = one;
                    cursors = [null];
                    attempt(showList);
                },
            }),
            h(
                "p",
                { className: "bar" },
                turn("Back", cursors.length === 1, () => cursors.pop()),
                h("span", { className: "muted" }, `Page ${cursors.length}`),
                turn("Next", page.next_cursor === null, () => cursors.push(page.next_cursor)),
            ),
        );
    }

    function onUpdate(update) {
        if (update.message_id !== id || (now !== null && update.version < now.version)) return;
        const { newly_read: newly = [], type, newly_read_truncated: truncated, ...rest } = update;
        now = rest;
        showReceipt();
        const changed = dots.read(newly.map((reader) => reader.user_id));
        // The update names some of the readers only, or somebody left, or an id was erased.
        const known = changed === newly.length && !truncated && newly.length > 0;
        if (!known || !stale) scheduleLists(!known);
        const names = newly
            .slice(0, 3)
            .map((reader) => reader.user_id)
            .join(", ");
        const others = newly.length > 3 ? ` and ${plural(newly.length - 3, "other")}` : "";
        updates.prepend(
            h(
                "li",
                { className: "update" },
                h(
                    "details",
                    {},
                    h(
                        "summary",
                        {},
                        h("time", {}, clock(Date.now())),
                        ` read by ${update.read_count ?? "–"}, version ${update.version}`,
                        names && `, new: ${names}${others}`,
                    ),
                    h("pre", { tabIndex: 0 }, JSON.stringify(update, null, 2)),
                ),
            ),
        );
        while (updates.children.length > UPDATES_MAX) updates.lastChild.remove();
    }

    let timer = 0;
    let wantsAll = false;
    /** Asks for the lists at most every second. */
    function scheduleLists(all) {
        wantsAll ||= all;
        if (stale) return;
        stale = true;
        timer = setTimeout(() => {
            const whole = wantsAll;
            wantsAll = stale = false;
            attempt(whole ? load : showList);
        }, 1000);
    }

    view.append(
        notice,
        h("section", { className: "card" }, headline, canvas, pointed, figures),
        h(
            "div",
            { className: "two" },
            card("Lists", list),
            card("Updates", h("p", { className: "muted" }, "As they come by the stream, the newest first."), updates),
        ),
    );

    const stop = follow(conversation, {
        onUpdate,
        onOpen: () => attempt(load),
        onState: (state, error) => error !== undefined && fill(notice, error.message),
    });
    attempt(load);
    return () => {
        stop();
        clearTimeout(timer);
        dots.close();
    };
}

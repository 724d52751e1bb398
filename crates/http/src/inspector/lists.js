// The three lists of a message's audience, as tabs above one of them.

import { clock, h, number } from "./dom.js";

/** The lists, by the names of the API. */
export const LISTS = ["read", "unread", "departed"];

/**
 * Returns the tabs, and the list that is shown. `count` returns the length of a list, and `onChoose`
 * is called with the list that a person chooses.
 */
export function memberLists({ shown, count, people, className, onChoose }) {
    const tab = (list) =>
        h(
            "button",
            { role: "tab", "aria-selected": String(list === shown), onclick: () => onChoose(list) },
            `${list[0].toUpperCase()}${list.slice(1)} ${number(count(list))}`,
        );
    const person = (member) =>
        h(
            "li",
            {},
            member.user_id,
            member.left && h("span", { className: "muted" }, " left"),
            member.read_at_ms !== undefined && h("time", { className: "muted" }, clock(member.read_at_ms)),
        );
    return [
        h("div", { role: "tablist", "aria-label": "Lists" }, LISTS.map(tab)),
        h(
            "div",
            { role: "tabpanel", tabIndex: 0 },
            people.length === 0 ? h("p", { className: "muted" }, "Nobody") : h("ul", { className }, people.map(person)),
        ),
    ];
}

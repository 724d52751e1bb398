// Makes and fills elements. Texts are always text, never markup: ids come from users.

const isShown = (child) => child !== null && child !== false && child !== undefined;

/**
 * Returns a new element. `properties` are set on it; `on…` are listeners, and names with a hyphen,
 * `role` and `for` are attributes. Children are elements or texts; null and false are left out.
 */
export function h(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
        else element[name] = value;
    }
    element.append(...children.flat().filter(isShown));
    return element;
}

/** Replaces the content of an element. */
export function fill(element, ...children) {
    element.replaceChildren(...children.flat().filter(isShown));
}

let cards = 0;

/** Returns a section with a title. */
export function card(title, ...children) {
    cards += 1;
    const id = `card-${cards}`;
    return h("section", { className: "card", "aria-labelledby": id }, h("h3", { id }, title), ...children);
}

/** Returns a number with separators of thousands. */
export const number = (value) => value.toLocaleString("en");

/** Returns the time of day of Unix milliseconds. */
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

/** Returns one of two words by a number: "1 message", "2 messages". */
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

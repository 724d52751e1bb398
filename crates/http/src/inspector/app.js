// Chooses the view by the address, asks for a token where one is needed, and shows whether the
// service is ready. Knows nothing of the content of a view.

import { readiness, setToken } from "./api.js";
import { fill, h, plural } from "./dom.js";
import { message } from "./message.js";
import { operations } from "./operations.js";
import { playground } from "./playground.js";

const CATCHING_UP = "Catching up with the log";
const views = { playground, message, operations };
const view = document.querySelector("#view");
const credential = document.querySelector("#credential");
let leave = () => {};

function show() {
    const [name, ...rest] = location.hash.replace(/^#\//, "").split("/").map(decodeURIComponent);
    if (!(name in views)) {
        location.replace("#/playground");
        return;
    }
    leave();
    for (const link of document.querySelectorAll("nav a")) {
        if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
    }
    document.title = `${name[0].toUpperCase()}${name.slice(1)} – Receipts`;
    fill(view);
    leave = views[name](view, rest) ?? (() => {});
}

async function showHealth() {
    const health = document.querySelector("#health");
    let state = "bad";
    let text = "The service does not answer";
    try {
        const ready = await readiness();
        state = ready === null || ready.caught_up ? "good" : "wait";
        text =
            ready === null
                ? "Running"
                : ready.caught_up
                  ? `Ready, ${plural(ready.partitions, "partition")}`
                  : CATCHING_UP;
    } catch {
        // The text says it.
    }
    health.dataset.state = state;
    if (health.textContent !== text) fill(health, h("span", { className: "lamp", "aria-hidden": "true" }), text);
    setTimeout(showHealth, document.hidden ? 15000 : 3000);
}

addEventListener("receipts-unauthenticated", () => {
    if (!credential.open) credential.showModal();
});
credential.addEventListener("close", () => {
    const token = document.querySelector("#token");
    if (token.value.trim() === "") return;
    setToken(token.value);
    token.value = "";
    show();
});
addEventListener("hashchange", show);
show();
showHealth();

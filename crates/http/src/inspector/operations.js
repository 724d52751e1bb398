// The metrics of this process: rates over the last minutes, partitions with their lag, dead letters by
// reason, and the routes. Reads /metrics every two seconds while it is shown.

import { metrics, readiness } from "./api.js";
import { card, clock, fill, h, number } from "./dom.js";

const EVERY_MS = 2000;
const KEPT = 90;
const CHARTS = [
    ["Records folded", "receipts_records_total", "per second"],
    ["Updates published", "receipts_updates_total", "per second"],
    ["Requests", "receipts_http_requests_total", "per second"],
    ["Lag", "receipts_lag_records", "records"],
];

/** Returns the samples of a page of metrics in the text format of Prometheus: `{name, labels, value}`. */
export function parse(text) {
    const samples = [];
    for (const line of text.split("\n")) {
        const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
        if (found === null) continue;
        const labels = {};
        for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
        samples.push({ name: found[1], labels, value: Number(found[3]) });
    }
    return samples;
}

export function operations(view) {
    const notice = h("p", { className: "notice", role: "alert" });
    const charts = CHARTS.map(([title, name, unit]) => {
        const figure = h("p", { className: "figure" }, "–");
        const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        line.setAttribute("viewBox", "0 0 90 30");
        line.setAttribute("preserveAspectRatio", "none");
        line.setAttribute("aria-hidden", "true");
        line.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
        const card = h(
            "section",
            { className: "card chart" },
            h("h3", {}, title),
            figure,
            line,
            h("p", { className: "muted" }, unit),
        );
        return { name, unit, figure, line, card, points: [] };
    });
    const partitions = h("tbody");
    const letters = h("tbody");
    const state = h("p", { className: "muted" });
    view.append(
        h("h2", { className: "hidden" }, "Operations"),
        notice,
        h(
            "div",
            { className: "four" },
            charts.map((chart) => chart.card),
        ),
        card(
            "Partitions of this process",
            state,
            table(
                ["Partition", "Role", "Folded up to", "End of the log", "Lag", "Behind by", "Snapshot", "Memory"],
                partitions,
            ),
        ),
        card(
            "Dead letters since the start",
            table(["Reason", "Records"], letters),
            h(
                "p",
                { className: "muted" },
                "The records themselves: ",
                h("code", {}, "receipts dead-letters list"),
                ".",
            ),
        ),
    );

    let before = null;
    let timer = 0;
    async function look() {
        try {
            const [text, ready] = await Promise.all([metrics(), readiness()]);
            if (text === "") throw new Error("This listener has no metrics: they are at http.admin_listen.");
            show(parse(text), ready);
            fill(notice);
        } catch (error) {
            fill(notice, error.message === "Failed to fetch" ? "The service does not answer" : error.message);
        }
        timer = setTimeout(look, EVERY_MS);
    }

    function show(samples, ready) {
        const at = performance.now();
        const sum = (name) => samples.filter((one) => one.name === name).reduce((all, one) => all + one.value, 0);
        const now = Object.fromEntries(CHARTS.map(([, name]) => [name, sum(name)]));
        for (const chart of charts) {
            const isRate = chart.unit === "per second";
            if (isRate && before === null) continue;
            const value = isRate
                ? Math.max(0, (now[chart.name] - before.values[chart.name]) / ((at - before.at) / 1000))
                : now[chart.name];
            chart.points = [...chart.points, value].slice(-KEPT);
            fill(chart.figure, number(Math.round(value * 10) / 10));
            const most = Math.max(1, ...chart.points);
            const first = KEPT - chart.points.length;
            chart.line.firstChild.setAttribute(
                "points",
                chart.points
                    .map((point, index) => `${first + index},${(29 - (27 * point) / most).toFixed(1)}`)
                    .join(" "),
            );
        }
        before = { at, values: now };
        showPartitions(samples, ready);
        const reasons = samples.filter((one) => one.name === "receipts_dead_letters_total");
        const some = reasons.filter((one) => one.value > 0);
        fill(
            letters,
            some.length === 0
                ? h("tr", {}, h("td", { colSpan: 2 }, "None"))
                : some.map((one) => h("tr", {}, h("td", {}, one.labels.reason), h("td", {}, number(one.value)))),
        );
    }

    function showPartitions(samples, ready) {
        const of = (partition, name) =>
            samples.find((one) => one.name === name && one.labels.partition === partition)?.value;
        const all = [
            ...new Set(samples.filter((one) => one.name === "receipts_lag_records").map((one) => one.labels.partition)),
        ];
        all.sort((a, b) => a - b);
        const roles = samples
            .filter((one) => one.name === "receipts_partitions" && one.value > 0)
            .map((one) => one.labels.role);
        const shown = (value, text = number) => (value === undefined ? "–" : text(value));
        const seconds = (value) => `${number(Math.round(value * 10) / 10)} s`;
        const mebibytes = (value) => `${number(Math.round(value / 104857.6) / 10)} MiB`;
        fill(state, `${ready?.caught_up ? "Caught up" : "Behind"}, looked at ${clock(Date.now())}`);
        fill(
            partitions,
            all.length === 0
                ? h("tr", {}, h("td", { colSpan: 8 }, "This process folds no partition: ask a projector."))
                : all.map((one) =>
                      h(
                          "tr",
                          {},
                          h("th", { scope: "row" }, one),
                          h("td", {}, roles.length === 1 ? roles[0] : "–"),
                          h("td", {}, shown(of(one, "receipts_applied_offset"))),
                          h("td", {}, shown(of(one, "receipts_end_offset"))),
                          h("td", {}, shown(of(one, "receipts_lag_records"))),
                          h("td", {}, shown(of(one, "receipts_lag_seconds"), seconds)),
                          h(
                              "td",
                              {},
                              shown(of(one, "receipts_snapshot_age_seconds"), (value) => `${seconds(value)} ago`),
                          ),
                          h("td", {}, shown(of(one, "receipts_memory_bytes"), mebibytes)),
                      ),
                  ),
        );
    }

    look();
    return () => clearTimeout(timer);
}

function table(heads, body) {
    return h(
        "div",
        { className: "scroll", tabIndex: 0, role: "region", "aria-label": heads[0] },
        h(
            "table",
            {},
            h(
                "thead",
                {},
                h(
                    "tr",
                    {},
                    heads.map((head) => h("th", { scope: "col" }, head)),
                ),
            ),
            body,
        ),
    );
}

// A field of dots, one for each person of an audience, which fill as people read. Draws only the
// dots that changed, so 100,000 of them move smoothly.

const KINDS = { unread: 0, read: 1, departed: 2, unnamed: 3 };
const FLASH_MS = 900;
/** The greatest height of the field, in CSS pixels. */
const MOST_PX = 420;

export class Dots {
    #canvas;
    #kinds = new Uint8Array(0);
    #names = [];
    #index = new Map();
    #flashing = new Map();
    #columns = 1;
    #size = 1;
    #frame = 0;
    #width = 0;
    #resized;
    #scheme;

    constructor(canvas) {
        this.#canvas = canvas;
        this.#resized = new ResizeObserver(() => {
            if (canvas.clientWidth !== this.#width) this.draw();
        });
        this.#resized.observe(canvas);
        this.#scheme = matchMedia("(prefers-color-scheme: dark)");
        this.#scheme.onchange = () => this.draw();
    }

    close() {
        this.#resized.disconnect();
        this.#scheme.onchange = null;
        cancelAnimationFrame(this.#frame);
    }

    /**
     * Shows an audience: the named people by kind, and dots without names up to `total`. Of a person in
     * several lists, which were walked one after the other, the last one counts.
     */
    show(people, total) {
        const kinds = new Map(Object.entries(people).flatMap(([kind, ids]) => ids.map((id) => [id, KINDS[kind]])));
        const named = [...kinds].sort(([a], [b]) => (a < b ? -1 : 1));
        const count = Math.max(total, named.length);
        this.#names = named.map(([id]) => id);
        this.#index = new Map(this.#names.map((id, at) => [id, at]));
        this.#kinds = new Uint8Array(count).fill(KINDS.unnamed);
        named.forEach(([, kind], at) => {
            this.#kinds[at] = kind;
        });
        this.#flashing.clear();
        this.draw();
    }

    /** Marks people as readers. Returns the number that were not. */
    read(ids) {
        let changed = 0;
        for (const id of ids) {
            const at = this.#index.get(id);
            if (at === undefined || this.#kinds[at] === KINDS.read) continue;
            this.#kinds[at] = KINDS.read;
            this.#flashing.set(at, performance.now());
            changed += 1;
        }
        if (changed > 0) this.#animate();
        return changed;
    }

    /** Returns the name of the dot at a point of the canvas, in CSS pixels, and its kind. */
    at(x, y) {
        const scale = devicePixelRatio;
        const column = Math.floor((x * scale) / this.#size);
        const index = Math.floor((y * scale) / this.#size) * this.#columns + column;
        if (column >= this.#columns || index >= this.#kinds.length) return null;
        const kind = Object.keys(KINDS)[this.#kinds[index]];
        return { name: this.#names[index] ?? "a hidden reader", kind };
    }

    draw() {
        const canvas = this.#canvas;
        const scale = devicePixelRatio;
        this.#width = canvas.clientWidth;
        const width = Math.floor(canvas.clientWidth * scale);
        const count = this.#kinds.length;
        if (width === 0 || count === 0) return;
        const most = Math.min(MOST_PX, Math.max(160, canvas.clientWidth * 0.5)) * scale;
        const rows = (size) => Math.ceil(count / Math.max(1, Math.floor(width / size)));
        let size = Math.floor(28 * scale);
        while (size > 1 && rows(size) * size > most) size -= 1;
        this.#size = size;
        this.#columns = Math.max(1, Math.floor(width / size));
        canvas.width = width;
        canvas.height = rows(size) * size;
        canvas.style.height = `${canvas.height / scale}px`;
        const context = canvas.getContext("2d");
        const palette = this.#palette();
        for (let at = 0; at < count; at += 1) this.#dot(context, palette, at, 0);
    }

    #palette() {
        const style = getComputedStyle(this.#canvas);
        return ["unread", "read", "departed", "unnamed", "flash"].map((name) =>
            style.getPropertyValue(`--dot-${name}`),
        );
    }

    /** Draws a dot; `flash` falls from 1 to 0 after a read. */
    #dot(context, palette, at, flash) {
        const [x, y] = [(at % this.#columns) * this.#size, Math.floor(at / this.#columns) * this.#size];
        context.clearRect(x, y, this.#size, this.#size);
        context.fillStyle = flash > 0 ? palette[4] : palette[this.#kinds[at]];
        if (this.#size < 6) {
            // With a gap, the smallest dots would be half as dark.
            const side = this.#size < 4 ? this.#size : this.#size - 1;
            context.fillRect(x, y, side, side);
            return;
        }
        const radius = this.#size / 2;
        context.beginPath();
        context.arc(x + radius, y + radius, radius * (0.72 + 0.2 * flash), 0, 2 * Math.PI);
        context.fill();
    }

    #animate() {
        cancelAnimationFrame(this.#frame);
        const context = this.#canvas.getContext("2d");
        const palette = this.#palette();
        const step = (now) => {
            for (const [at, since] of this.#flashing) {
                const left = Math.max(0, 1 - (now - since) / FLASH_MS);
                this.#dot(context, palette, at, left);
                if (left === 0) this.#flashing.delete(at);
            }
            if (this.#flashing.size > 0) this.#frame = requestAnimationFrame(step);
        };
        this.#frame = requestAnimationFrame(step);
    }
}

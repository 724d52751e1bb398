/** The real service in its own process, and a proxy in front of it that can fail. */

import { spawn, type ChildProcess } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ReceiptsClient } from "receipts-client";

const binary = join(process.env["RECEIPTS_TEST_BIN_DIR"] ?? "../../target/debug", "receipts");

/** A running `receipts serve` with an embedded log. */
export class Service {
  #process: ChildProcess | undefined;
  #listen = "127.0.0.1:0";
  url = "";

  private constructor(
    readonly dir: string,
    readonly secret: string | undefined,
  ) {}

  /** With a secret the service accepts only callers with tokens signed by it. */
  static async start(secret?: string): Promise<Service> {
    const service = new Service(await mkdtemp(join(tmpdir(), "receipts-")), secret);
    await service.resume();
    return service;
  }

  /** Starts a service with a copy of this one's log, so that positions of both are of the same log. */
  async copy(): Promise<Service> {
    const service = new Service(await mkdtemp(join(tmpdir(), "receipts-")), this.secret);
    await this.kill();
    await cp(join(this.dir, "data"), join(service.dir, "data"), { recursive: true });
    await Promise.all([this.resume(), service.resume()]);
    return service;
  }

  /** Starts or restarts the service at the same address. */
  async resume(): Promise<void> {
    const flags = ["--http-listen", this.#listen, "--data-dir", join(this.dir, "data"), "--json"];
    if (this.secret !== undefined) {
      const file = join(this.dir, "secret");
      await writeFile(file, this.secret, { mode: 0o600 });
      flags.push("--auth-secret-file", file, "--auth-issuer", "test", "--auth-audience", "receipts");
    }
    const child = spawn(binary, ["serve", ...flags], { stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    let log = "";
    child.stderr.on("data", (bytes: Buffer) => (log = (log + bytes).slice(-10_000)));
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const ended = once(child, "exit").then(() => ({ value: undefined }));
    const { value: ready } = await Promise.race([lines.next(), ended]);
    if (typeof ready !== "string") throw new Error(`${binary} ended before it was ready:\n${log}`);
    this.url = (JSON.parse(ready) as { http: string }).http;
    this.#listen = new URL(this.url).host;
  }

  /** Kills the service; acknowledged events stay. */
  async kill(): Promise<void> {
    if (this.#process === undefined || this.#process.exitCode !== null) return;
    const exit = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await exit;
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.dir, { recursive: true, force: true });
  }

  /** Returns a token that is valid for a minute. */
  token(claims: { sub?: string; scope?: string }): string {
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const exp = Math.floor(Date.now() / 1000) + 60;
    const common = { iss: "test", aud: "receipts", tenant: "default", exp };
    const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ ...common, ...claims })}`;
    return `${text}.${createHmac("sha256", this.secret ?? "")
      .update(text)
      .digest("base64url")}`;
  }

  /** Returns a client with all scopes. */
  backend(tenant = "default"): ReceiptsClient {
    return new ReceiptsClient({ baseURL: this.url, tenant });
  }
}

/** Forwards TCP to the service. It can cut connections, or go silent without closing them, as networks do. */
export class Network {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  connections = 0;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async before(service: Service): Promise<Network> {
    const server = createServer();
    const network = new Network(server);
    server.on("connection", (near) => {
      network.connections++;
      const far = connect(Number(new URL(service.url).port), "127.0.0.1");
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ] as const) {
        network.#sockets.add(socket);
        socket.on("error", () => other.destroy());
        socket.on("close", () => {
          network.#sockets.delete(socket);
          other.destroy();
        });
        socket.pipe(other);
      }
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return network;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  cut(): void {
    this.#sockets.forEach((socket) => socket.destroy());
  }

  /** Makes the present connections silent. */
  freeze(): void {
    this.#sockets.forEach((socket) => socket.unpipe());
  }

  async close(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }
}

/** Waits until a condition holds. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 20_000; !holds();) {
    if (Date.now() > deadline) throw new Error(`not within 20 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

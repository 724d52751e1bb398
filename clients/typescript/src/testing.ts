/** A real service for tests, for Node only: starts `receipts serve --ephemeral`, which keeps everything in memory. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { ReceiptsClient } from "./client.js";
import type { ClientOptions } from "./http.js";

/** How to start a service. */
export interface ServiceOptions {
  /** More flags of `receipts serve`: `["--log-partitions", "3"]`. */
  flags?: readonly string[];
  /** The binary; by default the one that `RECEIPTS_BIN` names, or else `receipts` in `PATH`. */
  binary?: string;
}

/** A running service with an empty log of its own. It ends with {@link stop}, or else with this process, even if that is killed. */
export class EphemeralService {
  readonly #end: () => Promise<void>;

  /** @internal Call {@link startService}. */
  constructor(
    /** Its address: `http://127.0.0.1:PORT`. */
    readonly url: string,
    end: () => Promise<void>,
  ) {
    this.#end = end;
  }

  /** Returns a client of the service, with all scopes unless the options say otherwise. */
  client(options: Partial<ClientOptions> = {}): ReceiptsClient {
    return new ReceiptsClient({ ...options, baseURL: this.url });
  }

  /** Ends the service. Nothing of it remains. */
  async stop(): Promise<void> {
    await this.#end();
  }
}

/** Starts a service and waits until it is ready. Takes no settings from this process's environment. */
export async function startService({ flags = [], binary }: ServiceOptions = {}): Promise<EphemeralService> {
  const program = binary ?? (process.env["RECEIPTS_BIN"] || "receipts");
  const isSetting = (name: string) => name.startsWith("RECEIPTS_") || name === "OTEL_EXPORTER_OTLP_ENDPOINT";
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !isSetting(name)));
  // The system closes the pipe of its standard input when this process ends, however it ends.
  const all = ["serve", "--ephemeral", "--until-stdin-closes", ...flags];
  const child = spawn(program, all, { env, stdio: ["pipe", "pipe", "inherit"] });
  const line = await new Promise<string>((resolve, reject) => {
    child.once("error", (cause: NodeJS.ErrnoException) => {
      const advice = "install `receipts` into PATH, or name it with RECEIPTS_BIN";
      const problem = cause.code === "ENOENT" ? "there is no program" : "cannot run";
      reject(new Error(`${problem} ${program}: ${advice}`, { cause }));
    });
    // "close" comes after the last line, "exit" may come before it.
    child.once("close", (status, signal) =>
      reject(new Error(`${program} ended with ${status ?? signal} before it was ready: standard error has its reason`)),
    );
    createInterface({ input: child.stdout }).once("line", resolve);
  });
  let url: unknown;
  try {
    url = (JSON.parse(line) as { http?: unknown }).http;
  } catch {
    // The line is no JSON: the check below says so.
  }
  if (typeof url !== "string") {
    child.kill("SIGKILL");
    throw new Error(`the first line of ${program} is ${JSON.stringify(line)}: is it a \`receipts\` of this version?`);
  }
  // A running service does not keep this process alive.
  child.unref();
  (child.stdin as Socket).unref();
  (child.stdout as Socket).unref();
  return new EphemeralService(url, async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    // This process has to live until the service has ended.
    child.ref();
    child.kill("SIGKILL");
    await exit;
  });
}

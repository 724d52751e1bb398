/** The packed package, as an application gets it: ES modules and CommonJS, and the types of both. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import ts from "typescript";

const folder = mkdtempSync(join(tmpdir(), "receipts-package-"));
const installed = join(folder, "node_modules/receipts-client");
after(() => rmSync(folder, { recursive: true, force: true }));
let files: string[];
before(() => {
  // Without scripts, because dist was built just now.
  const packed = execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder]);
  const [{ filename, files: found }] = JSON.parse(String(packed)) as [{ filename: string; files: { path: string }[] }];
  files = found.map(({ path }) => path);
  mkdirSync(installed, { recursive: true });
  execFileSync("tar", ["xzf", join(folder, filename), "--strip-components=1", "-C", installed]);
});

test("the package has the license and no sources", () => {
  for (const name of ["LICENSE", "README.md", "package.json", "dist/esm/index.js", "dist/cjs/index.d.ts"]) {
    assert.ok(files.includes(name), name);
  }
  assert.ok(files.every((name) => !name.startsWith("src/") && !name.startsWith("test/")));
});

test("both kinds of modules load", () => {
  const use = `new ReceiptsClient({ baseURL: "http://127.0.0.1" }).position === "" && ReceiptsProblem.name`;
  const run = (name: string, program: string) => {
    writeFileSync(join(folder, name), program);
    return String(execFileSync(process.execPath, [name], { cwd: folder })).trim();
  };
  const imported = `import { ReceiptsClient, ReceiptsProblem } from "receipts-client";\nconsole.log(${use});`;
  assert.equal(run("use.mjs", imported), "ReceiptsProblem");
  const required = `const { ReceiptsClient, ReceiptsProblem } = require("receipts-client");\nconsole.log(${use});`;
  assert.equal(run("use.cjs", required), "ReceiptsProblem");
});

test("only the module for tests needs Node", () => {
  const modules = files.filter((name) => /^dist\/.*\.js$/.test(name));
  const ofNode = modules.filter((name) => readFileSync(join(installed, name), "utf8").includes("node:"));
  assert.deepEqual(ofNode.sort(), ["dist/cjs/testing.js", "dist/esm/testing.js"]);
  const imported = modules.filter((name) => /testing\.js["']/.test(readFileSync(join(installed, name), "utf8")));
  assert.deepEqual(imported, [], "no other module imports it");
});

test("types are found, and narrow on the status", () => {
  const program = `
    import { ReceiptsClient, type Receipt, type ReceiptUpdate } from "receipts-client";
    import { startService } from "receipts-client/testing";
    export const client = new ReceiptsClient({ baseURL: "", token: () => "t" });
    export function counts(receipt: Receipt, { status, read_count }: ReceiptUpdate): number {
      if (status === "ok") return read_count;
      return receipt.status === "ok" ? receipt.read_count + receipt.version : 0;
    }
    export const own = async (): Promise<ReceiptsClient> => (await startService({ flags: [] })).client({ tenant: "t" });
    export async function show(): Promise<number[]> {
      const receipts = await client.getMessageReadReceipts([]);
      return receipts.flatMap(({ status, read_count }) => (status === "ok" ? [read_count] : []));
    }`;
  const { ModuleKind, ModuleResolutionKind: Resolution } = ts;
  for (const [name, module, moduleResolution] of [
    ["esm.mts", ModuleKind.Node16, Resolution.Node16],
    ["cjs.cts", ModuleKind.Node16, Resolution.Node16],
    ["bundled.ts", ModuleKind.ESNext, Resolution.Bundler],
    ["node10.ts", ModuleKind.CommonJS, Resolution.Node10],
  ] as const) {
    assert.deepEqual(problems(name, program, module, moduleResolution), [], name);
  }
  const unguarded = program.replace('if (status === "ok") return', "if (status) return");
  const found = problems("unguarded.mts", unguarded, ModuleKind.Node16, Resolution.Node16);
  assert.match(String(found), /Type 'number \| undefined' is not assignable/, "and the check sees what is wrong");
});

/** The files of the compiler's own library, which all programs share. */
const library = new Map<string, ts.SourceFile | undefined>();

/** Returns the compiler's messages about a program that uses the package. */
function problems(
  name: string,
  program: string,
  module: ts.ModuleKind,
  moduleResolution: ts.ModuleResolutionKind,
): string[] {
  const path = join(folder, name);
  writeFileSync(path, program);
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    skipDefaultLibCheck: true,
    target: ts.ScriptTarget.ES2022,
    lib: ["lib.es2022.d.ts", "lib.dom.d.ts"],
    module,
    moduleResolution,
    types: [],
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile } = host;
  host.getSourceFile = (file, ...rest) => {
    if (!file.includes("/typescript/lib/")) return getSourceFile(file, ...rest);
    if (!library.has(file)) library.set(file, getSourceFile(file, ...rest));
    return library.get(file);
  };
  const messages = ts.getPreEmitDiagnostics(ts.createProgram([path], options, host));
  return messages.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"));
}

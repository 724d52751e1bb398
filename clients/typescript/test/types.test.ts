/** The types against the golden examples of `schemas/update/v1`, which the service publishes. */

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import ts from "typescript";

test("every golden update has the type Update", async () => {
  const folder = "../../schemas/update/v1/examples/";
  const names = (await readdir(folder)).filter((name) => name.endsWith(".json"));
  assert.ok(names.length > 0);
  const texts = await Promise.all(names.map((name) => readFile(folder + name, "utf8")));
  const lines = texts.map((text, at) => `/* ${names[at]} */ (${JSON.stringify(JSON.parse(text))}) satisfies Update;`);
  const program = [`import type { Update } from "../src/types.js";`, ...lines].join("\n");
  assert.deepEqual(problems(program), []);
  const wrong = `import type { Update } from "../src/types.js";\n({ type: "receipt.updated", surplus: 1 }) satisfies Update;`;
  assert.equal(problems(wrong).length, 1, "and the check sees what is wrong");
});

/** Returns the compiler's output for a program in this folder. */
function problems(program: string): string[] {
  const options: ts.CompilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    types: [],
  };
  const host = ts.createCompilerHost(options);
  const name = `${process.cwd()}/test/golden.ts`;
  const { fileExists, getSourceFile } = host;
  host.fileExists = (path) => path === name || fileExists(path);
  host.getSourceFile = (path, ...rest) =>
    path === name ? ts.createSourceFile(path, program, ts.ScriptTarget.ES2022) : getSourceFile(path, ...rest);
  const diagnostics = ts.getPreEmitDiagnostics(ts.createProgram([name], options, host));
  return diagnostics.map((diagnostic) => {
    const at = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start ?? 0).line ?? 0;
    const line = program.split("\n")[at]?.slice(0, 60);
    return `${line}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n")}`;
  });
}

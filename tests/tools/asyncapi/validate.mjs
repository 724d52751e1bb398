// Checks schemas/asyncapi.yaml against the AsyncAPI 3 specification with its own parser, including
// references to files. Warnings count as errors: node validate.mjs DOCUMENT
import { Parser, fromFile } from "@asyncapi/parser";

const [document] = process.argv.slice(2);
const { document: parsed, diagnostics } = await fromFile(new Parser(), document).parse();
// Severities run from 0, an error, to 3, a hint. Hints give general advice, not about this document.
const found = diagnostics.filter(({ severity }) => severity < 2);
for (const { message, path, range } of found) {
  console.error(`${document}:${range.start.line + 1}: /${path.join("/")}: ${message}`);
}
if (found.length > 0 || parsed === undefined) {
  process.exit(1);
}
const messages = parsed.allMessages().length;
console.log(`${document}: AsyncAPI ${parsed.version()}, ${parsed.channels().length} channels, ${messages} messages`);
if (messages === 0) {
  process.exit(1);
}

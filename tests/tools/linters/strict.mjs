// Compiles every JSON Schema of schemas/ with ajv in its strict mode, which refuses what other
// tools might misread: keywords without a type, required names without a property.

import Ajv7 from "ajv";
import Ajv2020 from "ajv/dist/2020.js";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const [root] = process.argv.slice(2);
const files = readdirSync(root, { recursive: true }).filter((name) => name.endsWith(".schema.json"));
const options = { strict: true, allErrors: true };
const [newest, draft7] = [new Ajv2020(options), new Ajv7(options)];
const of = (schema) => (schema.$schema.includes("draft-07") ? draft7 : newest);
const schemas = files.map((name) => [name, JSON.parse(readFileSync(join(root, name), "utf8"))]);
for (const [, schema] of schemas) of(schema).addSchema(schema);
let failed = 0;
for (const [name, schema] of schemas) {
  try {
    of(schema).getSchema(schema.$id);
  } catch (error) {
    failed += 1;
    console.error(`${name}: ${error.message}`);
  }
}
console.log(`ajv, strict: ${schemas.length - failed} of ${schemas.length} schemas`);
process.exit(failed === 0 && schemas.length > 0 ? 0 : 1);

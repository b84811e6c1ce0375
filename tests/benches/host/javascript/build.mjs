// node build.mjs WIT COMPONENT
import { writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const [witPath, output] = process.argv.slice(2);
const options = { sourcePath: "handler.js", witPath, worldName: "event-handler", disableFeatures: ["http", "fetch-event"] };
const { component } = await componentize(options);
await writeFile(output, component);

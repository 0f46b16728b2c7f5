import { writeFileSync } from "node:fs";
import { errorsDocument, openApiDocument } from "./documents.ts";

writeFileSync("docs/openapi.json", await openApiDocument());
writeFileSync("docs/errors.md", errorsDocument());

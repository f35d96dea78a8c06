// Copies the page, the LiteRT runtime and a model into one folder for any web server:
// node build.mjs [MODEL [OUT]]. MODEL is a .tflite file or a folder with model.tflite.

import { cp, mkdir, rm, stat, writeFile } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"

const PAGE = ["index.html", "style.css", "app.js", "model.js"]
// The page needs two of the four builds of the runtime: the default one, and the one for
// browsers without relaxed SIMD. The others need threads, or promises in wasm.
const RUNTIME = ["litert_wasm_internal", "litert_wasm_compat_internal"]

const here = dirname(fileURLToPath(import.meta.url))
const modules = join(here, "node_modules", "@litertjs")
const [model, out = join(here, "dist")] = process.argv.slice(2)

function fail(message) {
  console.error(message)
  process.exit(1)
}

const kind = async (path) => {
  const found = await stat(path).catch(() => null)
  return found && (found.isDirectory() ? "folder" : "file")
}

if (!(await kind(join(modules, "core")))) fail("Run `npm install` in this folder first.")
// An earlier build is removed before the new one is written. Nothing else is removed.
const target = resolve(out)
if ((await kind(target)) && !(await kind(join(target, "model.js")))) {
  fail(`OUT must be a new folder or an earlier build. Received: ${out}`)
}

let file
if (model) {
  file = (await kind(model)) === "folder" ? join(model, "model.tflite") : model
  if ((await kind(file)) !== "file") fail(`MODEL must be a .tflite file. Received: ${model}`)
  if (resolve(dirname(file)) === target) fail("MODEL must not be inside OUT.")
}

await rm(target, { recursive: true, force: true })
await mkdir(join(target, "vendor"), { recursive: true })
for (const name of PAGE) await cp(join(here, name), join(target, name))
for (const name of ["core", "wasm-utils"]) {
  await cp(join(modules, name, "dist/index.js"), join(target, "vendor", `${name}.js`))
}
for (const name of RUNTIME) {
  for (const end of [".js", ".wasm"]) {
    await cp(join(modules, "core/wasm", name + end), join(target, "vendor/wasm", name + end))
  }
}

if (file) {
  const card = file.replace(/\.tflite$/, ".card.json")
  const examples = join(dirname(file), "examples.json")
  await cp(file, join(target, "model.tflite"))
  // Writes empty objects for missing files, for which the browser would log errors.
  const beside = { "model.card.json": card, "examples.json": examples }
  for (const [name, path] of Object.entries(beside)) {
    const found = await kind(path)
    await (found ? cp(path, join(target, name)) : writeFile(join(target, name), "{}\n"))
  }
}
console.log(`${target}: ${file ? `the page and ${basename(file)}` : "the page, without a model"}`)

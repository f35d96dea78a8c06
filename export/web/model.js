// The exported model as plain functions of arrays. Only this file uses the LiteRT runtime.

import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core"

/** An error with a message for the page. */
export class ModelError extends Error {}

const here = (path) => new URL(path, document.baseURI).href

/**
 * Loads the runtime, `model.tflite`, its card and the examples.
 *
 * Returns the properties of the model and its functions. A function is null if the file lacks
 * its signature. Arrays are flat: z has `latent` numbers, pictures have
 * `height * width * channels`, in the model's range of values.
 */
export async function loadModel(say = () => {}) {
  say("Loading the model …")
  const [bytes, card, examples] = await Promise.all([
    fetchModel(),
    fetchJson("model.card.json"),
    fetchJson("examples.json"),
  ])
  say("Starting the runtime …")
  await startRuntime()
  let compiled
  try {
    // Always the CPU: its results are the same everywhere, so that a seed has the same picture
    // as in Python.
    compiled = await loadAndCompile(bytes, { accelerator: "wasm" })
  } catch (error) {
    throw new ModelError(`model.tflite is not a LiteRT model that can be run: ${error.message}`)
  }
  const signatures = compiled.signatures
  const { latent, shape } = shapes(signatures)
  const model = { label: 0 } // the condition of a conditional model, a class number
  const run = (name, inputs) =>
    runSignature(signatures, name, { condition: model.label, ...inputs })
  const has = (name) => name in signatures

  const encodeMean = (x) =>
    has("encode_mean") ? run("encode_mean", { x }) : run("encode", { x, seed: 0 })
  return Object.assign(model, {
    card: card ?? {},
    examples: fitting(examples, shape, latent),
    /** The names of the labels; empty if the model has no labels. */
    classes: labelled(signatures) ? (examples?.classes ?? ["0"]) : [],
    signatures: Object.keys(signatures),
    latent,
    height: shape[0],
    width: shape[1],
    channels: shape[2],
    /** z -> the mean of p(x|z). */
    decode: async (z) => (await run("decode", { z })).mean,
    /** An int32 seed -> { x, mean, z }. */
    sample: has("sample") ? (seed) => run("sample", { seed }) : null,
    /** x -> { mean } of q(z|x), and its stddev if the model has one. */
    encode: has("encode")
      ? async (x) => {
          const { stddev } = await run("encode", { x, seed: 0 })
          return { mean: (await encodeMean(x)).mean, stddev }
        }
      : has("encode_mean")
        ? encodeMean
        : null,
    /** x, seed -> { log_prob, elbo, kl, log_likelihood }, in nats. */
    score: has("score") ? (x, seed) => run("score", { x, seed }) : null,
  })
}

/** Whether the model has a label input; throws for other conditions. */
function labelled(signatures) {
  const others = signatures.decode.getInputDetails().filter(({ name }) => name !== "z")
  if (others.some(({ name, dtype }) => name !== "condition" || dtype !== "int32")) {
    const names = others.map(({ name }) => name).join(", ")
    throw new ModelError(`The page supports only labels as conditions. This model has: ${names}.`)
  }
  return others.length > 0
}

async function fetchModel() {
  let response
  try {
    response = await fetch(here("model.tflite"))
  } catch (error) {
    throw new ModelError(`model.tflite could not be fetched: ${error.message}`)
  }
  if (!response.ok) {
    throw new ModelError(
      "There is no model.tflite beside this page " +
        `(server status ${response.status}). Export a model and build the page with it.`,
    )
  }
  const bytes = new Uint8Array(await response.arrayBuffer())
  // Some servers return a page for every address, which would crash the runtime.
  if (String.fromCharCode(...bytes.slice(4, 8)) !== "TFL3") {
    throw new ModelError("model.tflite is not a LiteRT file.")
  }
  return bytes
}

async function fetchJson(name) {
  try {
    const response = await fetch(here(name))
    return response.ok ? await response.json() : null
  } catch {
    return null // The card and the examples are optional.
  }
}

async function startRuntime() {
  // The runtime writes its whole log as errors; only lines with ERROR or FATAL are errors.
  self.Module = {
    printErr: (line) => (/^(ERROR|FATAL)/.test(line) ? console.error : console.debug)(line),
  }
  try {
    await loadLiteRt(here("vendor/wasm/"))
  } catch (error) {
    const reason = error instanceof Error ? error.message : "its files did not load"
    throw new ModelError(
      `The LiteRT runtime did not start (${reason}). It needs a recent browser with WebAssembly.`,
    )
  }
}

/** The latent size and the picture's [height, width, channels], from `decode`. */
function shapes(signatures) {
  const decode = signatures.decode
  const details = decode?.getOutputDetails().find(({ name }) => name === "mean")
  if (!details) {
    const names = Object.keys(signatures).join(", ")
    throw new ModelError(`This model has no signature “decode” with a mean. It has: ${names}.`)
  }
  const input = decode.getInputDetails().find(({ name }) => name === "z").shape
  if (input[0] !== 1) {
    throw new ModelError(
      `This model takes ${input[0] > 0 ? input[0] : "any number of"} rows per call. ` +
        "The page needs one that is exported with batch_size=1.",
    )
  }
  const latent = rowSize(input)
  const shape = [...details.shape].slice(1)
  if (shape.length === 2) shape.push(1)
  if (shape.length !== 3 || ![1, 3].includes(shape[2])) {
    throw new ModelError(
      `This model does not make images: a row of its data has the shape [${shape}]. ` +
        "The page shows those of [height, width, 1 or 3].",
    )
  }
  return { latent, shape }
}

const rowSize = (shape) => [...shape].slice(1).reduce((product, size) => product * size, 1)

/** The examples that match the model. */
function fitting(examples, shape, latent) {
  const size = shape.reduce((a, b) => a * b)
  const images = (examples?.images ?? []).filter((image) => image.length === size)
  const kl = examples?.kl_per_unit
  return { images, labels: examples?.labels ?? [], kl: kl?.length === latent ? kl : null }
}

async function runSignature(signatures, name, values) {
  const signature = signatures[name]
  const inputs = {}
  let tensors = {}
  try {
    for (const { name: key, dtype, shape } of signature.getInputDetails()) {
      const Data = dtype === "int32" ? Int32Array : Float32Array
      const value = typeof values[key] === "number" ? [values[key]] : values[key]
      inputs[key] = new Tensor(Data.from(value), [...shape])
    }
    tensors = await signature.run(inputs)
    const entries = Object.entries(tensors)
    return Object.fromEntries(entries.map(([key, tensor]) => [key, tensor.toTypedArray()]))
  } finally {
    // The runtime owns their memory, and does not collect it.
    for (const tensor of [...Object.values(inputs), ...Object.values(tensors)]) tensor.delete()
  }
}

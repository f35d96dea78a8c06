// The page: one point z of the latent space, and the parts that show and move it.

import { ModelError, loadModel } from "./model.js"

const FIRST = 8 // sliders shown initially
const MORE = 16 // sliders added by the button below them
const GRID = 11 // pictures per side of the map
const GAP = 0.1 // gap between them, relative to a picture
const FRAMES = 7 // pictures from A to B
const BUDGET = 9 // milliseconds per screen refresh for small pictures

const $ = (id) => document.getElementById(id)
const clamp = (value, low, high) => Math.min(high, Math.max(low, value))
const round = (value, digits = 2) => value.toFixed(digits).replace("-", "−")

let model
const state = {
  z: null, // Float32Array, the current point
  picture: null, // the mean of p(x|z), in the model's range
  caption: "", // the source of z
  order: [], // units, most active first
  span: 3, // sliders and map range from -span to span
  sample: null, // the last { seed, x, mean, z }
  encoded: null, // the last { x, mean, stddev }
  ends: { a: null, b: null },
}

// ---- Pictures ----

let range = [0, 1] // values of the model that are shown as black and white

function paint(canvas, values) {
  const { width, height, channels } = model
  const [low, high] = range
  const image = new ImageData(width, height)
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      const value = values[i * channels + (channels === 3 ? c : 0)]
      image.data[4 * i + c] = Math.round((255 * (value - low)) / (high - low)) // ImageData clamps
    }
    image.data[4 * i + 3] = 255
  }
  if (canvas.width !== width || canvas.height !== height) {
    Object.assign(canvas, { width, height })
  }
  canvas.getContext("2d").putImageData(image, 0, 0)
}

// ---- Drawing: the picture first, then small pictures in the time left per frame ----

const work = { picture: false, map: [], strip: [], running: false, waiting: [] }

function wake() {
  if (!work.running) requestAnimationFrame(frame)
  work.running = true
}

async function frame() {
  const start = performance.now()
  try {
    if (work.picture) {
      work.picture = false
      state.picture = await model.decode(state.z)
      paint($("picture"), state.picture)
    }
    do {
      const job = work.strip.shift() ?? work.map.shift()
      await job?.()
    } while (work.map.length + work.strip.length && performance.now() - start < BUDGET)
  } catch (error) {
    return fail(error)
  }
  if (work.picture || work.map.length || work.strip.length) return requestAnimationFrame(frame)
  work.running = false
  for (const done of work.waiting.splice(0)) done()
}

/** Resolves once everything is drawn. */
const idle = () => new Promise((done) => (work.running ? work.waiting.push(done) : done()))

// ---- The point z ----

function setZ(z, caption) {
  const old = state.z
  state.z = Float32Array.from(z)
  state.caption = caption
  $("caption").textContent = caption
  $("draw").classList.toggle("stale", state.sample?.z !== z)
  work.picture = true
  showSliders()
  showHandle()
  const axes = mapAxes()
  if (!old || old.some((value, unit) => value !== state.z[unit] && !axes.includes(unit))) {
    restartMap()
  }
  wake()
}

function setUnits(changes) {
  const z = state.z.slice()
  for (const [unit, value] of changes) z[unit] = value
  setZ(z, "Set by hand")
}

// ---- Sliders ----

const sliders = []

function makeSliders() {
  const kl = model.examples.kl
  const most = kl && Math.max(...kl, 1e-6)
  for (const unit of state.order) {
    const row = document.createElement("label")
    row.className = "unit"
    row.hidden = true
    const name = document.createElement("span")
    name.textContent = `z${unit}`
    if (kl) {
      row.title = `${round(kl[unit])} nats of KL on average`
      const part = clamp(kl[unit] / most, 0, 1)
      name.style.setProperty("--activity", part < 0.03 ? 0 : part) // too short to see
    }
    const input = document.createElement("input")
    const { span } = state
    Object.assign(input, { type: "range", min: -span, max: span, step: span / 300 })
    input.setAttribute("aria-label", `Latent unit ${unit}`)
    input.addEventListener("input", () => setUnits([[unit, input.valueAsNumber]]))
    const value = document.createElement("output")
    row.append(name, input, value)
    $("sliders").append(row)
    sliders[unit] = { row, input, value }
  }
  showMore(FIRST)
  $("more").addEventListener("click", () => showMore(MORE))
  $("activity").hidden = !kl
  $("centre").addEventListener("click", () => {
    setZ(new Float32Array(model.latent), "The centre of the latent space")
  })
}

function showMore(count) {
  const hidden = state.order.filter((unit) => sliders[unit].row.hidden)
  for (const unit of hidden.splice(0, count)) sliders[unit].row.hidden = false
  $("more").hidden = !hidden.length
  $("more").textContent = `Show ${Math.min(hidden.length, MORE)} more`
}

function showSliders() {
  for (const [unit, { input, value }] of sliders.entries()) {
    const z = state.z[unit]
    input.value = z // The slider stops at its end, but z may be larger.
    fill(input)
    value.textContent = round(z, state.span < 1 ? 3 : 2)
  }
}

/** Sets the position of the thumb for the style sheet. */
function fill(input) {
  const { min, max, valueAsNumber } = input
  input.style.setProperty("--at", (valueAsNumber - min) / (max - min))
}

// ---- Map ----

const mapAxes = () => [Number($("across").value), Number($("up").value)]

function makeMap() {
  if (model.latent < 2) return ($("map").hidden = true)
  for (const [place, id] of ["across", "up"].entries()) {
    for (const unit of state.order) $(id).add(new Option(`z${unit}`, unit))
    $(id).selectedIndex = place
    $(id).addEventListener("change", () => {
      const other = $(id === "across" ? "up" : "across")
      // Two axes with the same unit would be a line: the other axis gets the old unit.
      if (other.value === $(id).value) other.value = $(id).dataset.was
      rememberAxes()
      showHandle()
      restartMap()
      wake()
    })
  }
  rememberAxes()
  const plane = $("plane")
  const canvas = plane.querySelector("canvas")
  // About 64 pixels per picture are enough for any screen.
  const scale = Math.max(1, Math.floor(64 / Math.max(model.width, model.height)))
  const shrink = Math.max(1, Math.max(model.width, model.height) / 64)
  canvas.width = GRID * Math.round((model.width * scale) / shrink)
  canvas.height = GRID * Math.round((model.height * scale) / shrink)
  plane.style.aspectRatio = `${model.width} / ${model.height}`

  const move = (event) => {
    const box = plane.getBoundingClientRect()
    const [across, up] = mapAxes()
    const part = (value) => state.span * (2 * clamp(value, 0, 1) - 1)
    setUnits([
      [across, part((event.clientX - box.left) / box.width)],
      [up, part((box.bottom - event.clientY) / box.height)],
    ])
  }
  plane.addEventListener("pointerdown", (event) => {
    if (event.button) return
    plane.setPointerCapture(event.pointerId)
    move(event)
  })
  plane.addEventListener("pointermove", (event) => {
    if (plane.hasPointerCapture(event.pointerId)) move(event)
  })
  plane.addEventListener("keydown", (event) => {
    const step = (event.shiftKey ? 0.5 : 0.1) * (state.span / 3)
    const steps = {
      ArrowLeft: [-step, 0],
      ArrowRight: [step, 0],
      ArrowUp: [0, step],
      ArrowDown: [0, -step],
    }
    if (!(event.key in steps)) return
    const [x, y] = steps[event.key]
    event.preventDefault()
    const [across, up] = mapAxes()
    const moved = (unit, by) => [unit, clamp(state.z[unit] + by, -state.span, state.span)]
    setUnits([moved(across, x), moved(up, y)])
  })
}

function rememberAxes() {
  for (const id of ["across", "up"]) $(id).dataset.was = $(id).value
  const [across, up] = mapAxes()
  $("plane").setAttribute("aria-label", `Map of unit ${across} across and unit ${up} up`)
}

function showHandle() {
  if (model.latent < 2) return
  const place = (unit) => 50 * (1 + clamp(state.z[unit] / state.span, -1, 1))
  const [across, up] = mapAxes()
  $("handle").style.left = `${place(across)}%`
  $("handle").style.top = `${100 - place(up)}%`
}

const tile = document.createElement("canvas")

/** Redraws the map, from the handle outwards. */
function restartMap() {
  if (model.latent < 2) return
  const [across, up] = mapAxes()
  const canvas = $("plane").querySelector("canvas")
  const context = canvas.getContext("2d")
  const [width, height] = [canvas.width / GRID, canvas.height / GRID]
  const at = (place) => state.span * ((2 * place + 1) / GRID - 1) // centre of a cell
  const cells = []
  for (let row = 0; row < GRID; row++) {
    for (let column = 0; column < GRID; column++) {
      const [x, y] = [at(column), -at(row)]
      const far = Math.hypot(x - state.z[across], y - state.z[up])
      cells.push({ row, column, x, y, far })
    }
  }
  cells.sort((one, other) => one.far - other.far)
  const base = state.z.slice()
  work.map = cells.map(({ row, column, x, y }) => async () => {
    const z = base.slice()
    z[across] = x
    z[up] = y
    paint(tile, await model.decode(z))
    context.imageSmoothingQuality = "high"
    // The gap separates the strokes of neighbouring pictures.
    const [left, top] = [(column + GAP / 2) * width, (row + GAP / 2) * height]
    context.drawImage(tile, left, top, (1 - GAP) * width, (1 - GAP) * height)
  })
}

// ---- Labels ----

/** The same z with another label. */
function setLabel(label) {
  model.label = label
  $("label").selectedIndex = label
}

function makeLabels() {
  $("labels").hidden = !model.classes.length
  for (const name of model.classes) $("label").append(new Option(name))
  $("label").addEventListener("change", () => {
    setLabel($("label").selectedIndex)
    setZ(state.z, state.caption)
    restartMap()
    for (const [end, z] of Object.entries(state.ends)) if (z) keep(end, z)
  })
}

// ---- Samples ----

function readSeed() {
  const text = $("seed").value.trim().replace("−", "-")
  const seed = Number(text)
  const fits = /^[-+]?\d+$/.test(text) && seed >= -(2 ** 31) && seed < 2 ** 31
  $("seed").setAttribute("aria-invalid", !fits)
  $("seed-error").textContent = fits
    ? ""
    : "The seed must be a whole number from −2147483648 to 2147483647."
  return fits ? seed : null
}

let typed = true // whether the input has a seed that was not sampled yet

async function drawSample() {
  let seed = readSeed()
  if (seed === null) return
  if (!typed) seed = seed === 2 ** 31 - 1 ? -(2 ** 31) : seed + 1
  typed = false
  $("seed").value = seed
  const drawn = await model.sample(seed)
  state.sample = { seed, ...drawn }
  paint($("draw").querySelector("canvas"), drawn.x)
  $("draw").hidden = false
  setZ(drawn.z, `Sample of seed ${seed}: mean and sampled pixels`)
}

function makeSample() {
  if (!model.sample) return ($("sample").hidden = true)
  $("sample").addEventListener("submit", (event) => {
    event.preventDefault()
    drawSample().catch(fail)
  })
  $("seed").addEventListener("input", () => {
    typed = true
    readSeed()
  })
}

// ---- Encoding ----

let source = null // { x, name }: values in [0, 1], before inversion

/** The centre of an image, resized to the model's shape: values in [0, 1]. */
function imageToX(image) {
  const { width, height, channels } = model
  const scale = Math.min(image.width / width, image.height / height)
  let [w, h] = [width * scale, height * scale]
  let from = [image, (image.width - w) / 2, (image.height - h) / 2, w, h]
  let context
  do {
    // Halves the size repeatedly: one large step would skip pixels in some browsers.
    ;[w, h] = w > 2 * width ? [w / 2, h / 2] : [width, height]
    const canvas = document.createElement("canvas")
    Object.assign(canvas, { width: Math.round(w), height: Math.round(h) })
    context = canvas.getContext("2d")
    context.imageSmoothingQuality = "high"
    context.fillStyle = "white" // background of transparent pixels
    context.fillRect(0, 0, canvas.width, canvas.height)
    context.drawImage(...from, 0, 0, canvas.width, canvas.height)
    from = [canvas, 0, 0, canvas.width, canvas.height]
  } while (w !== width || h !== height)
  const rgba = context.getImageData(0, 0, width, height).data
  const x = new Float32Array(width * height * channels)
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = rgba.subarray(4 * i)
    if (channels === 3) x.set([r / 255, g / 255, b / 255], 3 * i)
    else x[i] = (0.299 * r + 0.587 * g + 0.114 * b) / 255
  }
  return x
}

const toModel = (values) => values.map((value) => range[0] + (range[1] - range[0]) * value)

async function encodeSource() {
  const { x: shown, name } = source
  const x = toModel($("invert").checked ? shown.map((value) => 1 - value) : shown)
  const { mean, stddev } = await model.encode(x)
  if (mean.some(Number.isNaN)) throw new Error("the likelihood does not support these values")
  paint($("input"), x)
  paint($("output"), await model.decode(mean))
  state.encoded = { x, mean, stddev }
  showPosterior(mean, stddev)
  $("score").textContent = `Mean${stddev ? " and standard deviation" : ""} of each unit.`
  if (model.score) {
    const { log_prob: logProb, kl } = await model.score(x, 0)
    const nats = logProb && `log p(x) ≈ ${round(logProb[0], 1)} nats, KL ${round(kl[0], 1)}.`
    if (nats) $("score").textContent += ` ${nats}`
  }
  $("result").hidden = false
  $("hint").hidden = true
  setZ(mean, `Reconstruction of ${name}`)
}

/** Draws a dot at the mean of each unit, with a line of one stddev to both sides. */
function showPosterior(mean, stddev) {
  const units = state.order.slice(0, 64)
  const reach = Math.max(2, ...units.map((unit) => Math.abs(mean[unit]) + (stddev?.[unit] ?? 0)))
  const [step, half] = [12, 40]
  const svg = $("posterior")
  const at = (value) => half - (half - 4) * (value / reach)
  const marks = units.map((unit, place) => {
    const x = step * (place + 0.5)
    const [m, s] = [mean[unit], stddev?.[unit] ?? 0]
    return `<line x1="${x}" x2="${x}" y1="${at(m - s)}" y2="${at(m + s)}"/>
      <circle cx="${x}" cy="${at(m)}" r="2.6"/>`
  })
  const width = step * Math.max(16, units.length)
  svg.setAttribute("viewBox", `0 0 ${width} ${2 * half}`)
  svg.innerHTML = `<path d="M0 ${half}H${width}"/>${marks.join("")}`
  const words = units.slice(0, 8).map((unit) => `z${unit} ${round(mean[unit])}`)
  svg.setAttribute("aria-label", `Means of the most active units: ${words.join(", ")}`)
}

async function encodeNew(read, name) {
  $("encode-error").textContent = ""
  try {
    source = { x: await read(), name }
    await encodeSource()
  } catch (error) {
    $("encode-error").textContent = `${name} could not be encoded: ${error.message}`
  }
}

async function readFile(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("the browser cannot read it as an image")
  })
  return imageToX(bitmap)
}

function makeEncode() {
  if (!model.encode) return ($("encode").hidden = true)
  const { images, labels } = model.examples
  for (const [place, image] of images.entries()) {
    const name = `example ${labels[place] ?? place + 1}`
    const button = document.createElement("button")
    const canvas = document.createElement("canvas")
    button.setAttribute("aria-label", `Encode ${name}`)
    button.append(canvas)
    paint(canvas, toModel(image))
    button.addEventListener("click", () => {
      const label = model.classes.indexOf(labels[place])
      if (label >= 0) setLabel(label)
      encodeNew(() => Float32Array.from(image), name)
    })
    $("examples").append(button)
  }
  $("examples").hidden = !images.length
  const take = (file) => file && encodeNew(() => readFile(file), file.name || "the image")
  $("file").addEventListener("change", () => {
    take($("file").files[0])
    $("file").value = "" // so that the same file can be chosen again
  })
  // Accepts drops on the whole page: a browser would open an image dropped elsewhere.
  document.addEventListener("dragover", (event) => {
    event.preventDefault()
    $("drop").classList.add("over")
  })
  document.addEventListener("dragleave", () => $("drop").classList.remove("over"))
  document.addEventListener("drop", (event) => {
    event.preventDefault()
    $("drop").classList.remove("over")
    take(event.dataTransfer.files[0])
  })
  $("invert").addEventListener("change", () => {
    if (source) encodeNew(() => source.x, source.name)
  })
}

// ---- Interpolation ----

const mixed = (t) => {
  const { a, b } = state.ends
  if (t === 0 || t === 1) return t ? b : a // exact
  return a.map((value, unit) => value + t * (b[unit] - value))
}

function keep(end, z, at) {
  state.ends[end] = Float32Array.from(z)
  if (at !== undefined) $("mix").value = at
  fill($("mix"))
  const both = state.ends.a && state.ends.b
  $("mix").disabled = !both
  const frames = [...$("strip").children]
  const jobs = both
    ? frames.map((canvas, i) => [canvas, mixed(i / (FRAMES - 1))])
    : [[end === "a" ? frames[0] : frames.at(-1), state.ends[end]]]
  work.strip = jobs.map(([canvas, point]) => async () => paint(canvas, await model.decode(point)))
  wake()
}

function makeBetween() {
  for (let i = 0; i < FRAMES; i++) $("strip").append(document.createElement("canvas"))
  for (const canvas of $("strip").children) {
    Object.assign(canvas, { width: model.width, height: model.height })
  }
  $("keep-a").addEventListener("click", () => keep("a", state.z, 0))
  $("keep-b").addEventListener("click", () => keep("b", state.z, 1))
  $("mix").disabled = true
  fill($("mix"))
  $("mix").addEventListener("input", () => {
    const t = $("mix").valueAsNumber
    fill($("mix"))
    setZ(mixed(t), t === 0 ? "A" : t === 1 ? "B" : `From A to B: ${Math.round(100 * t)} %`)
  })
}

// ---- Start ----

/** Orders the units, sets the range of sliders, and returns the examples' means. */
async function survey() {
  const units = Array.from({ length: model.latent }, (_, unit) => unit)
  let activity = model.examples.kl
  const means = []
  if (model.encode && (!activity || !model.sample)) {
    for (const image of model.examples.images) {
      means.push((await model.encode(toModel(image))).mean)
    }
  }
  if (!activity && means.length > 1) {
    activity = units.map((unit) => {
      const values = means.map((mean) => mean[unit])
      const middle = values.reduce((a, b) => a + b) / values.length
      return values.reduce((sum, value) => sum + (value - middle) ** 2, 0)
    })
  }
  state.order = activity ? units.sort((a, b) => activity[b] - activity[a] || a - b) : units
  // Without a prior, latents may have any scale.
  const far = Math.max(0, ...means.flatMap((mean) => [...mean].map(Math.abs)))
  if (!model.sample && far) state.span = Number((1.1 * far).toPrecision(2))
  return means
}

function describe() {
  const { card, width, height, channels, latent } = model
  const likelihood = card.model?.likelihood?.class_name?.replace(/^Independent/, "")
  const facts = [
    typeof card.training?.data === "string" && card.training.data,
    `${width} × ${height} ${channels === 3 ? "colour" : "grey"}`,
    `${latent} latent unit${latent === 1 ? "" : "s"}`,
    likelihood && `${likelihood} likelihood`,
  ]
  $("about").textContent = facts.filter(Boolean).join(" · ")
}

function fail(error) {
  console.debug(error)
  document.body.dataset.state = "failed"
  const message = error instanceof ModelError ? error.message : `Something broke: ${error.message}`
  $("status").textContent = message
}

async function start() {
  model = await loadModel((text) => ($("status").textContent = text))
  window.vae.model = model
  const shown = model.card.training?.shown_range
  if (shown?.length === 2 && shown[1] > shown[0]) range = shown
  document.body.classList.toggle("small", Math.max(model.width, model.height) <= 64)
  document.body.style.setProperty("--aspect", `${model.width} / ${model.height}`)
  const means = await survey()
  describe()
  makeSliders()
  makeMap()
  makeLabels()
  makeSample()
  makeEncode()
  makeBetween()
  // Start with a picture, and with two end points for the interpolation.
  if (model.sample) {
    const other = await model.sample(2)
    await drawSample()
    keep("a", state.z)
    keep("b", other.z)
  } else {
    setZ(means[0] ?? new Float32Array(model.latent), "A point of the latent space")
    if (means.length) keep("a", means[0])
    if (means.length) keep("b", means.at(-1))
  }
  document.querySelector("main").hidden = false
  document.body.dataset.state = "ready"
  $("status").textContent = ""
}

// For tests and for the console.
window.vae = { state, idle }

start().catch(fail)

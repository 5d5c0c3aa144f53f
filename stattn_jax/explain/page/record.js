// The data of the explanation and its arithmetic: logits of kept units, probabilities, contributions.
//
// With weights beta and scores s of every (modality m, segment t), and `kept` units (a Uint8Array, picture first),
//     logit_c = bias_c + sum kept beta_c s_c / sum kept beta_c
// since a softmax over the remaining units is the original one, renormalised (ExplanationData.without_units). Terms are scaled by the same factor.

const record = JSON.parse(document.getElementById('data').textContent);

function bytes(base64) {
  return Uint8Array.from(atob(base64), (ch) => ch.charCodeAt(0));
}

// Typed arrays are little-endian wherever browsers run.
for (const [name, value] of Object.entries(record)) {
  if (value && value.base64 !== undefined) record[name] = new Float32Array(bytes(value.base64).buffer);
}

const [T, ROWS, COLUMNS] = record.geometry.grid;
const CELLS = ROWS * COLUMNS;
const SECONDS = record.geometry.segment_seconds;
const CLASSES = record.classes.length;

// Whether the clip has both modalities: only then can the sound select among the cells and the null cell.
const PAIRED = [0, 1].every((m) => record.units.slice(m * T, (m + 1) * T).some(Boolean));

function allKept() {
  return new Uint8Array(2 * T).fill(1);
}

// The logit of class c from the kept units, and their total weight; the logit is NaN where this weight is 0.
function pooled(c, kept) {
  if (kept.every((k) => k)) return { logit: record.logits[c], weight: 1 };
  const left = [...kept.keys()].filter((unit) => kept[unit] && record.units[unit]);
  let weight = 0;
  let sum = 0;
  for (const unit of left) {
    // A single remaining unit has weight 1, even where its weight underflowed in float32.
    const beta = left.length === 1 ? 1 : record.beta[unit * CLASSES + c];
    weight += beta;
    sum += beta * record.segment_scores[unit * CLASSES + c];
  }
  return { logit: record.bias[c] + sum / weight, weight };
}

function probabilities(kept) {
  const logits = Array.from({ length: CLASSES }, (_, c) => pooled(c, kept).logit);
  if (record.multi_label) return logits.map((x) => 1 / (1 + Math.exp(-x)));
  const top = Math.max(...logits);
  const powers = logits.map((x) => Math.exp(x - top));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / total);
}

// The number of half cells in a frame; 0 where the record has no map on half cells (visual_finer in explanation.py).
const HALF_CELLS = record.visual_finer ? 4 * CELLS : 0;

// Terms of one class: reference, cells [t h w] and finer [t 2h 2w] flat, picture [t], sound [t]; reference + all = logit, with
// cells or finer.
function terms(c, kept) {
  const { logit, weight } = pooled(c, kept);
  const row = record.shown.indexOf(c);
  const factor = weight > 0 ? 1 / weight : 0;
  const map = (values, inFrame) => Float64Array.from({ length: T * inFrame }, (_, n) =>
    kept[Math.floor(n / inFrame)] ? values[row * T * inFrame + n] * factor : 0);
  const cells = map(record.visual, CELLS);
  const finer = map(record.visual_finer, HALF_CELLS);
  const picture = Float64Array.from({ length: T }, (_, t) => total(cells.subarray(t * CELLS, (t + 1) * CELLS)));
  const sound = Float64Array.from({ length: T }, (_, t) => (kept[T + t] ? record.audio[row * T + t] * factor : 0));
  const whole = kept.every((k) => k);
  const reference = whole ? record.reference[row] : logit - total(picture) - total(sound);
  return { logit, reference, cells, finer, picture, sound };
}

// Contributions to class c, or the differences to another class; then `logit` is the margin.
function evidence(c, other, kept) {
  const first = terms(c, kept);
  if (other === null) return first;
  const second = terms(other, kept);
  const difference = (a, b) => a.map((x, i) => x - b[i]);
  return {
    logit: first.logit - second.logit,
    reference: first.reference - second.reference,
    cells: difference(first.cells, second.cells),
    finer: difference(first.finer, second.finer),
    picture: difference(first.picture, second.picture),
    sound: difference(first.sound, second.sound),
  };
}

function total(values) {
  let sum = 0;
  for (const x of values) sum += x;
  return sum;
}

function largest(values) {
  let most = 0;
  for (const x of values) most = Math.max(most, Math.abs(x));
  return most;
}

// The best class other than c.
function runnerUp(c) {
  return record.shown.find((other) => other !== c) ?? null;
}

// The number of the cell with the largest positive contribution; -1 where there is none.
function strongestCell(cells) {
  let best = -1;
  cells.forEach((x, n) => { if (x > 0 && (best < 0 || x > cells[best])) best = n; });
  return best;
}

// ---------------------------------------------------------------------------------------------------------------------
// Text
// ---------------------------------------------------------------------------------------------------------------------

function signedText(x, digits = 2) {
  if (!Number.isFinite(x)) return 'undefined';
  const text = Math.abs(x).toFixed(digits);
  return (Number(text) === 0 ? '' : x < 0 ? '\u2212' : '+') + text;
}

function plainText(x, digits = 2) {
  return signedText(x, digits).replace('+', '');
}

// As sentences.percent: values between 0 and 1 never round to 0% or 100%.
function percent(p) {
  if (!Number.isFinite(p)) return 'undefined';
  if (p > 0 && p < 0.01) return 'below 1%';
  if (p > 0.99 && p < 1) return 'above 99%';
  return `${Math.round(100 * p)}%`;
}

function trimmed(x) {
  return String(Number(x.toFixed(2)));
}

// The names of the modalities in texts; in the code they are picture and sound.
const NAMES = { picture: 'visual', sound: 'audio' };

function nullText(weight) {
  return `${percent(weight)} of the spatial attention is on the null cell (no visible source)`;
}

function segmentName(t) {
  return `${trimmed(t * SECONDS)}\u2013${trimmed((t + 1) * SECONDS)} s`;
}

function element(name, properties = {}, children = []) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

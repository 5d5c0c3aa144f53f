// The clip (a video or slides, with one interface) and the canvas with the heat map over it.

// -------------------------------------------------------------------------------------------------------------------
// The clock: play, pause, seek, time, length, playing, muted
// -------------------------------------------------------------------------------------------------------------------

function videoClock(onChange) {
  const video = byId('video');
  video.hidden = false;
  video.src = URL.createObjectURL(new Blob([bytes(byId('clip').textContent.trim())], { type: 'video/mp4' }));
  for (const name of ['play', 'pause', 'ended', 'seeked', 'loadedmetadata', 'timeupdate']) video.addEventListener(name, onChange);
  video.addEventListener('error', () => showNotice('This browser cannot play the clip (MP4 with H.264 and AAC).'));
  return {
    play: () => video.play().catch((error) => {
      // A pause before the first frame aborts the request to play, which is not an error.
      if (error.name !== 'AbortError') showNotice(`The clip cannot be played: ${error.message}`);
    }),
    pause: () => video.pause(),
    seek: (time) => { video.currentTime = time; },
    get time() { return video.currentTime; },
    get length() { return Number.isFinite(video.duration) ? video.duration : record.media.duration; },
    get playing() { return !video.paused && !video.ended; },
    get muted() { return video.muted; },
    set muted(on) { video.muted = on; },
    step: 1 / Math.min(30, record.media.fps || 30),
    silent: false,
  };
}

function slideClock(onChange) {
  const slide = byId('slide');
  slide.hidden = false;
  showNotice('This page does not contain the video. It shows one frame per segment, without sound.');
  let place = 0;
  let since = null;
  const now = () => (since === null ? place : Math.min(T * SECONDS, place + (performance.now() - since) / 1000));
  return {
    play: () => { if (now() >= T * SECONDS) place = 0; since = performance.now(); onChange(); },
    pause: () => { place = now(); since = null; onChange(); },
    seek: (time) => { place = time; if (since !== null) since = performance.now(); },
    get time() { return now(); },
    length: T * SECONDS,
    get playing() { return since !== null && now() < T * SECONDS; },
    muted: true,
    step: SECONDS,
    silent: true,
    show: (t) => { slide.src = record.slides[t]; },
  };
}

function showNotice(text) {
  byId('silent').hidden = false;
  byId('silent').textContent = text;
}

// -------------------------------------------------------------------------------------------------------------------
// The overlay
// -------------------------------------------------------------------------------------------------------------------

const HEAT = bytes(record.colours.heat);
const SIGNED = bytes(record.colours.signed);

function colour(table, place) {
  const i = 3 * Math.round(255 * place);
  return `rgb(${table[i]} ${table[i + 1]} ${table[i + 2]})`;
}

// The colour and opacity of a cell, as in colours.overlay; null where it is not painted.
function paint(term, scale, signed) {
  const strength = scale > 0 ? Math.min(1, Math.abs(term) / scale) : 0;
  if (strength === 0 || (!signed && term < 0)) return null;
  const opacity = record.opacity * strength ** record.opacity_exponent;
  return { opacity, fill: signed ? colour(SIGNED, 0.5 + 0.5 * Math.sign(term) * strength) : colour(HEAT, strength) };
}

// The term at the end of the colour scale, as in colours.overlay, for the evidence in the untouched clip: a what-if keeps this
// scale. It is enlarged where the visual sum of no segment reaches record.negligible times the largest audio term, so that a
// nearly irrelevant picture is not highlighted. Both maps have this scale: a half cell is painted with its term per area of a cell.
function heatScale(whole) {
  const [largestSum, negligible] = [largest(whole.picture), record.negligible * largest(whole.sound)];
  return Math.max(largest(whole.cells), 4 * largest(whole.finer)) * (largestSum > 0 && largestSum < negligible ? negligible / largestSum : 1);
}

// Edges of cell (i, j) in pixels of a canvas, rounded so that neighbours neither overlap nor leave a seam; `parts` 2: of a half cell.
function cellBox(i, j, width, height, parts = 1) {
  const to = record.geometry.to_source;
  const x = (k) => Math.round(width * (to.x_offset + (to.x_scale * k) / (parts * COLUMNS)));
  const y = (k) => Math.round(height * (to.y_offset + (to.y_scale * k) / (parts * ROWS)));
  return [x(j), y(i), x(j + 1) - x(j), y(i + 1) - y(i)];
}

function drawOverlay(canvas, view, scale, t, { overlay, signed, finer, cell }) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, width, height);
  if (!overlay && cell < 0) return;
  const [parts, terms] = finer ? [2, view.finer] : [1, view.cells];
  const [columns, inFrame] = [parts * COLUMNS, parts ** 2 * CELLS];
  for (let s = 0; overlay && s < inFrame; s++) {
    const term = parts ** 2 * terms[t * inFrame + s];
    const style = paint(term, scale, signed);
    if (!style) continue;
    const box = cellBox(Math.floor(s / columns), s % columns, width, height, parts);
    context.globalAlpha = style.opacity;
    context.fillStyle = style.fill;
    context.fillRect(...box);
    if (term < 0) hatch(context, box, 5 * ratio);
  }
  context.globalAlpha = 1;
  ruler(context, width, height, ratio);
  if (cell >= 0) grid(context, width, height);
  const strongest = strongestCell(view.cells);
  if (overlay && strongest >= 0 && Math.floor(strongest / CELLS) === t) {
    outline(context, cellBox(Math.floor((strongest % CELLS) / COLUMNS), strongest % COLUMNS, width, height), record.strongest, [], ratio);
  }
  for (const [, x0, y0, x1, y1] of boxesOf(t)) {
    outline(context, [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height], 'white', [7, 5], ratio);
  }
  if (cell >= 0) outline(context, cellBox(Math.floor(cell / COLUMNS), cell % COLUMNS, width, height), 'white', [2, 3], ratio);
}

function boxesOf(t) {
  return record.truth.boxes.filter(([time]) => Math.floor(time / SECONDS + 1e-6) === t);
}

// Hatches cells with negative terms, so that colour is not the only cue for the sign.
function hatch(context, [x, y, width, height], gap) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.beginPath();
  for (let k = -height; k < width; k += gap) {
    context.moveTo(x + k, y + height);
    context.lineTo(x + k + height, y);
  }
  context.strokeStyle = 'white';
  context.lineWidth = Math.max(1, gap / 5);
  context.stroke();
  context.restore();
}

// Marks the edges of cells at the border, so that the size of a cell is always visible.
function ruler(context, width, height, ratio) {
  const long = 6 * ratio;
  for (const [ink, wide] of [['black', 3], ['white', 1]]) {
    context.beginPath();
    for (let j = 0; j <= COLUMNS; j++) {
      const [x] = cellBox(0, j, width, height);
      for (const [from, to] of [[0, long], [height, height - long]]) { context.moveTo(x, from); context.lineTo(x, to); }
    }
    for (let i = 0; i <= ROWS; i++) {
      const [, y] = cellBox(i, 0, width, height);
      for (const [from, to] of [[0, long], [width, width - long]]) { context.moveTo(from, y); context.lineTo(to, y); }
    }
    Object.assign(context, { strokeStyle: ink, lineWidth: wide * ratio });
    context.stroke();
  }
}

function grid(context, width, height) {
  context.strokeStyle = 'rgb(255 255 255 / 35%)';
  context.lineWidth = 1;
  for (let s = 0; s < CELLS; s++) {
    const [x, y, wide, high] = cellBox(Math.floor(s / COLUMNS), s % COLUMNS, width, height);
    context.strokeRect(x + 0.5, y + 0.5, wide, high);
  }
}

function outline(context, [x, y, width, height], ink, dash, ratio) {
  for (const [colourOfLine, wide, dashes] of [['black', 4.5, []], [ink, 2.25, dash]]) {
    Object.assign(context, { strokeStyle: colourOfLine, lineWidth: wide * ratio });
    context.setLineDash(dashes.map((d) => d * ratio));
    context.strokeRect(x + ratio, y + ratio, width - 2 * ratio, height - 2 * ratio);
  }
  context.setLineDash([]);
}

// The number of the cell under a point of the canvas (CSS pixels); -1 outside the grid.
function cellAt(canvas, x, y) {
  const to = record.geometry.to_source;
  const j = Math.floor(((x / canvas.clientWidth - to.x_offset) / to.x_scale) * COLUMNS);
  const i = Math.floor(((y / canvas.clientHeight - to.y_offset) / to.y_scale) * ROWS);
  return i >= 0 && i < ROWS && j >= 0 && j < COLUMNS ? i * COLUMNS + j : -1;
}

function drawScale(scale, signed) {
  const context = byId('scale').getContext('2d');
  context.clearRect(0, 0, 256, 1);
  for (let k = 0; k < 256; k++) {
    context.fillStyle = colour(signed ? SIGNED : HEAT, k / 255);
    context.fillRect(k, 0, 1, 1);
  }
  const end = Number(scale.toPrecision(2));
  byId('scale-low').textContent = signed ? `\u2212${end}` : '0';
  byId('scale-high').textContent = `+${end} logit`;
}

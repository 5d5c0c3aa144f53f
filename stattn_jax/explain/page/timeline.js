// The strips under the clip: signed bars, what-if buttons, the slider that seeks, and the table.

const SVG = 'http://www.w3.org/2000/svg';

function shape(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// Three to eight round numbers from low to high, and how many digits they need.
function ticks(low, high) {
  const rough = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const values = Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, k) => (first + k) * step);
  return { values, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

// Draws the bars of `view`. Removed units are drawn as dashed bars of `whole`, in which nothing is removed.
function drawBars(view, whole, kept) {
  const svg = byId('bars');
  const [width, height] = [svg.clientWidth, svg.clientHeight];
  const every = [...view.picture, ...view.sound, ...whole.picture, ...whole.sound];
  const span = largest(every) || 1;
  const [low, high] = [Math.min(-0.12 * span, ...every) - 0.04 * span, Math.max(0.12 * span, ...every) + 0.04 * span];
  const bottom = 18;
  const y = (value) => ((high - value) / (high - low)) * (height - bottom - 4) + 4;
  const x = (second) => (second / (T * SECONDS)) * width;
  svg.replaceChildren(patterns());
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  const add = (name, attributes) => svg.append(shape(name, attributes));
  const write = (text, attributes) => { add('text', attributes); svg.lastChild.textContent = text; };
  for (const [from, to] of record.truth.intervals) {
    add('rect', { class: 'truth', x: x(from), y: 0.5, width: x(Math.min(to, T * SECONDS)) - x(from), height: height - bottom });
  }
  const { values, digits } = ticks(low, high);
  for (const value of values) {
    add('line', { class: value === 0 ? 'zero' : 'rule', x1: 0, x2: width, y1: y(value), y2: y(value) });
    write(value === 0 ? '0' : plainText(value, digits), { class: 'tick', x: -6, y: y(value) + 4, 'text-anchor': 'end' });
  }
  const slot = width / T;
  for (let t = 0; t < T; t++) {
    if (!record.valid[t]) add('rect', { class: 'missing', x: t * slot, y: 0, width: slot, height: height - bottom });
    add('line', { class: 'rule', x1: t * slot, x2: t * slot, y1: 0, y2: height - bottom });
    for (const [m, name] of ['picture', 'sound'].entries()) {
      const place = { x: t * slot + slot * (0.14 + 0.37 * m), width: slot * 0.35 };
      if (!kept[m * T + t]) add('rect', { class: `ghost ${name}`, ...place, ...upright(whole[name][t], y) });
      else add('rect', { class: `bar ${name}`, ...place, ...upright(view[name][t], y) });
    }
  }
  for (let t = 0; t <= T; t += Math.ceil(T / Math.max(2, Math.floor(width / 34)))) {
    write(trimmed(t * SECONDS), { class: 'tick', x: x(t * SECONDS), y: height - 4, 'text-anchor': t === 0 ? 'start' : t === T ? 'end' : 'middle' });
  }
}

function upright(value, y) {
  return { y: Math.min(y(0), y(value)), height: Math.abs(y(value) - y(0)) };
}

// Hatching of the audio bars and of segments without data, so that colour is not the only cue.
function patterns() {
  const defs = shape('defs', {});
  for (const [id, step] of [['hatch', 5], ['missing', 8]]) {
    const pattern = shape('pattern', { id, width: step, height: step, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' });
    pattern.append(shape('rect', { class: `${id}-ground`, width: step, height: step }));
    pattern.append(shape('rect', { class: `${id}-line`, width: id === 'hatch' ? 1.6 : 1, height: step }));
    defs.append(pattern);
  }
  return defs;
}

// Makes two rows of buttons, one for each (modality, segment); `toggle(units)` removes or restores units.
function makeUnits(toggle) {
  for (const [m, name] of ['picture', 'sound'].entries()) {
    for (let t = 0; t < T; t++) {
      const button = element('button', { type: 'button', className: name, disabled: !record.units[m * T + t] });
      button.setAttribute('aria-label', `Remove the ${name === 'picture' ? 'visual part' : 'audio'} of ${segmentName(t)}`);
      button.title = button.getAttribute('aria-label');
      button.addEventListener('click', () => toggle([m * T + t]));
      byId(`${name}-units`).append(button);
    }
    byId(`all-${name}`).disabled = !validUnits(m).length;
    byId(`all-${name}`).title = `Remove all ${NAMES[name]} evidence`;
    byId(`all-${name}`).setAttribute('aria-label', `Remove all ${NAMES[name]} evidence`);
    byId(`all-${name}`).addEventListener('click', () => toggle(validUnits(m)));
  }
}

function validUnits(m) {
  return record.valid.flatMap((_, t) => (record.units[m * T + t] ? [m * T + t] : []));
}

function showUnits(kept) {
  for (const [m, name] of ['picture', 'sound'].entries()) {
    [...byId(`${name}-units`).children].forEach((button, t) => button.setAttribute('aria-pressed', String(!kept[m * T + t])));
    byId(`all-${name}`).setAttribute('aria-pressed', String(validUnits(m).length > 0 && validUnits(m).every((unit) => !kept[unit])));
  }
}

// The slider over the strips: a click or a drag seeks.
function makeSeek(seek) {
  const slider = byId('seek');
  slider.setAttribute('aria-valuemin', '0');
  slider.setAttribute('aria-valuemax', trimmed(T * SECONDS));
  const to = (event) => {
    const box = slider.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * T * SECONDS);
  };
  slider.addEventListener('pointerdown', (event) => { slider.setPointerCapture(event.pointerId); to(event); });
  slider.addEventListener('pointermove', (event) => { if (slider.hasPointerCapture(event.pointerId)) to(event); });
}

function showPlace(time, t, view, subject) {
  const slider = byId('seek');
  byId('head').style.left = `${Math.min(100, (100 * time) / (T * SECONDS))}%`;
  const description = record.valid[t]
    ? `visual ${signedText(view.picture[t])}, audio ${signedText(view.sound[t])} for ${subject}`
    : 'no data';
  slider.setAttribute('aria-valuenow', time.toFixed(2));
  slider.setAttribute('aria-valuetext', `${time.toFixed(1)} seconds of ${trimmed(T * SECONDS)}; ${description}`);
  byId('readout').textContent = `${segmentName(t)}: ${description}${PAIRED ? `; ${nullText(record.null[t])}` : ''}.`;
}

function showTable(view, kept, subject) {
  const table = byId('table');
  table.caption.textContent = `Contributions to the logit of ${subject}, relative to the zero line. Removed parts are marked \u2013.`;
  const cells = (tag, texts) => element('tr', {}, texts.map((text, k) => element(k ? tag : 'th', { textContent: text, scope: k && tag === 'td' ? '' : k ? 'col' : tag === 'td' ? 'row' : 'col' })));
  table.tHead.replaceChildren(cells('th', ['segment', 'visual', 'audio', 'sum', 'attention on the null cell', 'strongest cell (row, column)']));
  table.tBodies[0].replaceChildren(...Array.from({ length: T }, (_, t) => {
    if (!record.valid[t]) return cells('td', [segmentName(t), 'no data', 'no data', '', '', '']);
    const best = strongestCell(view.cells.subarray(t * CELLS, (t + 1) * CELLS));
    return cells('td', [
      segmentName(t),
      kept[t] ? signedText(view.picture[t]) : '\u2013',
      kept[T + t] ? signedText(view.sound[t]) : '\u2013',
      signedText(view.picture[t] + view.sound[t]),
      PAIRED ? percent(record.null[t]) : '',
      best < 0 ? 'none' : `${Math.floor(best / COLUMNS) + 1}, ${(best % COLUMNS) + 1}`,
    ]);
  }));
}

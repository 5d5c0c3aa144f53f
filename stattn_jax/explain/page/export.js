// What leaves the page: its state in the address, the link, the table as CSV and the figure as PNG.

// The state as text for the address: class, compared class, removed units ("v0": visual part of segment 0, "a3": audio of 3), time.
function stateText({ c, other, kept, time }) {
  const values = new URLSearchParams();
  if (c !== record.chosen) values.set('class', record.classes[c]);
  if (other !== null) values.set('against', record.classes[other]);
  const removed = [...kept.keys()].filter((unit) => !kept[unit]).map((unit) => `${unit < T ? 'v' : 'a'}${unit % T}`);
  if (removed.length) values.set('without', removed.join('-'));
  if (time !== null) values.set('t', trimmed(time));
  return values.toString();
}

// The state that the address names; `unknown` lists what this page does not have.
function stateOf(text) {
  const values = new URLSearchParams(text);
  const unknown = [];
  const named = (key) => {
    const c = values.has(key) ? record.classes.indexOf(values.get(key)) : null;
    if (c === null || record.shown.includes(c)) return c;
    unknown.push(`${key}=${values.get(key)}`);
    return null;
  };
  const kept = allKept();
  for (const code of (values.get('without') ?? '').split('-').filter(Boolean)) {
    const [, modality, segment] = /^([va])(\d+)$/.exec(code) ?? [];
    if (record.valid[segment]) kept[(modality === 'v' ? 0 : T) + Number(segment)] = 0;
    else unknown.push(`without=${code}`);
  }
  const time = Number(values.get('t'));
  const known = values.has('t') && time >= 0 && time <= T * SECONDS;
  if (values.has('t') && !known) unknown.push(`t=${values.get('t')}`);
  const c = named('class') ?? record.chosen;
  const other = named('against');
  return { c, other: other === c ? null : other, kept, time: known ? time : null, unknown };
}

// The page of a notebook is in a frame without an address of its own.
function writeAddress(text) {
  if (location.protocol !== 'about:') history.replaceState(null, '', text ? `#${text}` : location.href.split('#')[0]);
}

function report(text) {
  byId('done').textContent = text;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without the permission for the clipboard, copying a selection may still be allowed.
    const area = element('textarea', { value: text, className: 'unseen' });
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    if (!copied) return report('The browser does not allow copying; take the link from the address bar.');
  }
  return report('Link copied.');
}

function save(blob, ending) {
  const name = `${record.media.file.replace(/\.[^.]*$/, '')}_${record.classes[state.c]}`.replace(/[^\p{L}\p{N}._-]+/gu, '_') + ending;
  const link = element('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60e3);
  report(`Saved ${name}.`);
}

// One row per segment, in the full precision of the record (float32).
function csvText(view, kept) {
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const number = (x) => String(Number(x.toPrecision(7)));
  const names = ['class', 'compared_with', 'segment', 'start', 'end', 'valid', 'visual_kept', 'audio_kept', 'visual', 'audio', 'null_cell', 'cell_row', 'cell_column'];
  const rows = Array.from({ length: T }, (_, t) => {
    const best = strongestCell(view.cells.subarray(t * CELLS, (t + 1) * CELLS));
    const [start, end] = [t, t + 1].map((k) => number(record.media.start + k * SECONDS));
    return [
      record.classes[state.c], state.other === null ? '' : record.classes[state.other], t, start, end, Number(record.valid[t]), kept[t], kept[T + t],
      number(view.picture[t]), number(view.sound[t]), number(record.null[t]), ...(best < 0 ? ['', ''] : [Math.floor(best / COLUMNS), best % COLUMNS]),
    ].map((value) => quoted(String(value)));
  });
  return [names, ...rows].map((row) => `${row.join(',')}\r\n`).join('');
}

// ---------------------------------------------------------------------------------------------------------------------
// The figure
// ---------------------------------------------------------------------------------------------------------------------

// The bars as an image, with the colours that the style sheet gives them here and room for the numbers beside them.
async function barsImage(room) {
  const svg = byId('bars');
  const copy = svg.cloneNode(true);
  const [from, to] = [svg, copy].map((root) => root.querySelectorAll('*'));
  from.forEach((node, k) => {
    const style = getComputedStyle(node);
    for (const name of ['fill', 'fill-opacity', 'stroke', 'stroke-width', 'stroke-dasharray', 'font-size', 'font-family']) {
      to[k].setAttribute(name, style.getPropertyValue(name));
    }
  });
  const [width, height] = [svg.clientWidth, svg.clientHeight];
  for (const [name, value] of Object.entries({ xmlns: SVG, width: 2 * (width + room), height: 2 * height, viewBox: `${-room} 0 ${width + room} ${height}` })) copy.setAttribute(name, value);
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  await image.decode();
  return { image, width: width + room, height };
}

// Writes text in lines of at most `width` pixels; returns the place below it.
function writeLines(context, text, x, y, width, size) {
  let line = '';
  const step = size * 1.4;
  for (const word of text.split(' ')) {
    const longer = line ? `${line} ${word}` : word;
    if (line && context.measureText(longer).width > width) {
      context.fillText(line, x, y + size);
      y += step;
      line = word;
    } else line = longer;
  }
  context.fillText(line, x, y + size);
  return y + step;
}

// The frame with its heat map, the log-mel and the bars, as they are shown, with the sentence and the notices above.
async function figureCanvas() {
  const room = 56;
  const bars = await barsImage(room);
  const [margin, scale] = [24, 2];
  const width = Math.max(bars.width, 560);
  const stage = byId('overlay');
  const [wide, high] = [stage.clientWidth, stage.clientHeight];
  const canvas = element('canvas', { width: scale * (width + 2 * margin), height: 8192 });
  const context = canvas.getContext('2d');
  context.scale(scale, scale);
  const style = getComputedStyle(document.body);
  context.fillStyle = style.backgroundColor;
  context.fillRect(0, 0, width + 2 * margin, 8192);
  context.fillStyle = style.color;
  let y = margin;
  const write = (text, size, weight = 400) => {
    context.font = `${weight} ${size}px ${style.fontFamily}`;
    y = writeLines(context, text, margin, y, width, size);
  };
  write(`${record.media.file}, ${segmentName(state.t)}`, 18, 650);
  write(byId('sentence').textContent, 15);
  for (const notice of byId('notices').children) write(`\u26a0 ${notice.textContent}`, 14);
  if (byId('reset').hidden === false) write(byId('answer').textContent, 14, 650);
  y += 8;
  context.drawImage(record.slides.length ? byId('slide') : byId('video'), margin, y, wide, high);
  context.drawImage(stage, margin, y, wide, high);
  const texts = (row) => Array.from(row.children, (cell) => cell.textContent).join('  ');
  const legend = [
    ...Array.from(byId('classes').querySelectorAll('label'), (row) => `${row.querySelector('.label').textContent}  ${row.querySelector('.number').textContent}`).slice(0, 5),
    '', `Evidence for ${subject()}:`, ...Array.from(byId('sum').rows, texts),
    '', `Heat map: ${byId('scale-low').textContent} to ${byId('scale-high').textContent}`, 'Bars: visual, audio (hatched)', byId('zero').textContent,
  ];
  let beside = y;
  context.font = `400 14px ${style.fontFamily}`;
  if (width - wide > 220) for (const text of legend) beside = writeLines(context, text, margin + wide + 20, beside, width - wide - 20, 14) + 4;
  y += high + 12;
  if (width - wide <= 220) write(legend.filter(Boolean).join('; '), 14);
  context.drawImage(byId('mel'), margin + room, y, bars.width - room, 44);
  context.drawImage(bars.image, margin, y + 50, bars.width, bars.height);
  const whole = element('canvas', { width: canvas.width, height: Math.round(scale * (y + 50 + bars.height + margin)) });
  whole.getContext('2d').drawImage(canvas, 0, 0);
  return whole;
}

// The boxes beside the clip: classes, the sum, one cell, what speaks for trusting it. Read next: player.js.

function makeClasses(choose) {
  const rows = record.shown.map((c, k) => {
    const input = element('input', { type: 'radio', name: 'class', value: c });
    input.addEventListener('change', () => choose(c));
    const name = element('span', { className: 'label', textContent: record.classes[c] });
    const meter = element('span', { className: 'meter', ariaHidden: 'true' }, [element('i'), element('b')]);
    const hint = element('kbd', { textContent: k < 9 ? k + 1 : '', ariaHidden: 'true' });
    return element('label', {}, [input, hint, name, meter, element('span', { className: 'number' })]);
  });
  byId('classes').append(...rows);
  const rest = CLASSES - record.shown.length;
  byId('more').textContent = rest ? `${rest} classes with lower logits are not in this page.` : '';
}

// Probabilities with what is kept; a tick stays where the whole clip had them.
function showClasses(c, kept) {
  const [now, before] = [probabilities(kept), probabilities(allKept())];
  [...byId('classes').querySelectorAll('label')].forEach((row, k) => {
    const shown = record.shown[k];
    row.querySelector('input').checked = shown === c;
    row.querySelector('.number').textContent = percent(now[shown]);
    row.querySelector('i').style.width = `${100 * (now[shown] || 0)}%`;
    row.querySelector('b').style.left = `${100 * before[shown]}%`;
  });
}

function zeroName(other) {
  if (other !== null) return 'different starting points';
  return record.centred ? 'an average clip' : 'the bias';
}

function showSum(view, c, other, kept) {
  const row = (name, value, mark = '') => element('tr', { className: mark }, [
    element('th', { scope: 'row', textContent: name }),
    element('td', { className: 'number', textContent: value }),
  ]);
  byId('sum').tBodies[0].replaceChildren(
    row(zeroName(other), plainText(view.reference)),
    row('picture', signedText(total(view.picture)), 'picture'),
    row('sound', signedText(total(view.sound)), 'sound'),
    row((other === null ? 'logit' : 'margin') + (kept.every((k) => k) ? '' : ', what-if'), plainText(view.logit), 'whole'),
  );
  const low = other === null ? `${zeroName(null)}, whose logit for ${record.classes[c]} is ${plainText(view.reference)}` : 'equal evidence for both';
  byId('zero').textContent = `Zero line: ${low}.`;
}

function showAnswer(c, other, kept) {
  const gone = [...record.valid, ...record.valid].filter((valid, unit) => valid && !kept[unit]).length;
  byId('reset').hidden = gone === 0;
  if (!gone) {
    byId('answer').textContent = 'Press a button of the two rows to take the picture or the sound of a second away.';
    return;
  }
  const all = allKept();
  const [now, before] = [pooled(c, kept).logit, pooled(c, all).logit];
  const pieces = `Without ${gone} of ${2 * record.valid.filter(Boolean).length} pieces, ${record.classes[c]} has `;
  if (!Number.isFinite(now)) {
    byId('answer').textContent = `${pieces}no logit: nothing with any weight is left.`;
    return;
  }
  const strong = (id, text) => element('strong', { id, className: 'number', textContent: text });
  byId('answer').replaceChildren(
    `${pieces}logit `, strong('what-if-logit', plainText(now, 4)), ` (was ${plainText(before, 4)}), probability `,
    strong('what-if-probability', percent(probabilities(kept)[c])), ` (was ${percent(probabilities(all)[c])})`,
    other === null ? '.' : `; margin over ${record.classes[other]} ${signedText(now - pooled(other, kept).logit)}.`,
  );
}

function contrastSentence(view, c, other) {
  const [a, b] = [record.classes[c], record.classes[other]];
  const how = view.logit >= 0 ? 'ahead of' : 'behind';
  const parts = `picture ${signedText(total(view.picture))}, sound ${signedText(total(view.sound))}, different starting points ${signedText(view.reference)}`;
  return `${a} is ${plainText(Math.abs(view.logit))} logit ${how} ${b}: ${parts}.`;
}

// What is told of the cell under the pointer or the cursor; `s` -1: how to ask.
function showCell(view, t, s, c, other) {
  if (s < 0) {
    byId('cell').textContent = 'Point at the picture, or focus it and use the arrow keys, to ask about one cell.';
    return;
  }
  const n = t * CELLS + s;
  const place = `Row ${Math.floor(s / COLUMNS) + 1}, column ${(s % COLUMNS) + 1} at ${secondName(t)}`;
  const said = `${place}: adds ${signedText(view.cells[n], 3)}, with ${percent(record.alpha[n])} of the picture's attention.`;
  const k = record.removed.indexOf(c);
  const removed = k < 0
    ? ` What its removal would do was not computed for ${record.classes[c]}.`
    : ` Taking this one cell out of the whole clip changes the logit of ${record.classes[c]} by ${signedText(record.removed_cells[k * T * CELLS + n], 3)} ` +
      '(exact; it moves the attention over cells and over time).';
  byId('cell').textContent = other === null ? said + removed : `${said} The value is that of the difference.`;
}

// ---------------------------------------------------------------------------------------------------------------------
// Trust
// ---------------------------------------------------------------------------------------------------------------------

function sameness(correlation) {
  if (correlation === null) return 'The map is constant.';
  const words = correlation > 0.9 ? 'looks the same: it hardly depends on the sound' : correlation > 0.5 ? 'is partly the same' : 'changes';
  return `The map ${words} (correlation ${plainText(correlation)}).`;
}

function facts(list, rows) {
  byId(list).replaceChildren(...rows.flatMap(([name, text]) => [element('dt', { textContent: name }), element('dd', { textContent: text })]));
}

const TRUST_NAMES = { silence: 'With silence for sound', shifted_sound: 'With its own sound, moved by half the clip' };

function showTrust(c) {
  const whole = terms(c, allKept());
  const error = Math.abs(whole.reference + total(whole.picture) + total(whole.sound) - whole.logit);
  const best = record.shown[0];
  const was = percent(probabilities(allKept())[best]);
  const other = (row) => (row.label === record.classes[best] ? `Still ${row.label},` : `${row.label} instead; ${record.classes[best]} has`) +
    ` ${percent(row.probability)} (was ${was}). ${sameness(row.map_correlation)}`;
  const asked = Object.entries(TRUST_NAMES).filter(([key]) => record.trust[key]).map(([key, name]) => [name, other(record.trust[key])]);
  const valid = record.valid.flatMap((v, t) => (v ? [record.null[t]] : []));
  facts('trust', [
    ['Does it add up?', `terms and logit differ by ${error.toExponential(0)}, recomputed here; at most ${record.residual.toExponential(0)} relative for any class`],
    ...asked,
    ['Attention on nothing visible', `${percent(total(valid) / valid.length)} on average`],
    ['Size of a cell', cellSize()],
  ]);
}

function cellSize() {
  const { x_scale: x, y_scale: y } = record.geometry.to_pixels;
  return `${Math.round(x / COLUMNS)} \u00d7 ${Math.round(y / ROWS)} of ${record.media.width} \u00d7 ${record.media.height} pixels`;
}

const LIMITS = [
  'Terms are exact for features, not for pixels: what a cell says also depends on the picture around it, as far as the network\u2019s receptive field reaches.',
  'A term is what a unit adds here. Taking the unit away gives its attention to the others, so the logit changes by another amount.',
  'Taking a second away in this page leaves the features as they are; a video with that second cut or silenced may be heard and seen differently.',
  'The network sees one frame of each second. What happens between those frames is not in the picture\u2019s terms.',
  'Share of picture and sound is counted from the zero line, a convention: the average clip of training.',
  'The network only knows its classes, and a high probability is not a measured rate of being right.',
];

function showMade() {
  const { media, model } = record;
  byId('limits').replaceChildren(...LIMITS.map((text) => element('li', { textContent: text })));
  facts('made', [
    ['File', `${media.file}, seconds ${trimmed(media.start)} to ${trimmed(media.start + media.duration)}`],
    ['SHA-256', media.sha256],
    ...(media.notes?.length ? [['Notes', media.notes.join(', ')]] : []),
    ['Model', `step ${model.step}, ${model.dtype}, parameters ${model.parameter_hash}, config ${model.config_hash}`],
    ['Versions', Object.entries(model.versions).map((pair) => pair.join(' ')).join(', ')],
  ]);
}

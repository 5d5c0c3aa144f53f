// The boxes beside the clip: classes, the sum of contributions, one cell, and checks.

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
  byId('other').append(...record.shown.map((c) => element('option', { value: c, textContent: record.classes[c] })));
  const rest = CLASSES - record.shown.length;
  byId('more').textContent = rest ? `${rest} classes with lower logits are not on this page; --label=NAME adds one.` : '';
}

// Shows the probabilities from the kept units; a tick marks the probability for the whole clip.
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
  if (other !== null) return 'difference of the zero points';
  return record.centred ? 'an average clip' : 'the bias';
}

function showSum(view, c, other, kept) {
  const row = (name, value, mark = '') => element('tr', { className: mark }, [
    element('th', { scope: 'row', textContent: name }),
    element('td', { className: 'number', textContent: value }),
  ]);
  byId('sum').tBodies[0].replaceChildren(
    row(zeroName(other), plainText(view.reference)),
    row('visual', signedText(total(view.picture)), 'picture'),
    row('audio', signedText(total(view.sound)), 'sound'),
    row((other === null ? 'logit' : 'margin') + (kept.every((k) => k) ? '' : ', what-if'), plainText(view.logit), 'whole'),
  );
  const zero = other === null ? `${zeroName(null)}, with logit ${plainText(view.reference)} for ${record.classes[c]}` : 'equal evidence for both classes';
  byId('zero').textContent = `Zero line: ${zero}.`;
}

function showAnswer(c, other, kept) {
  const removed = record.units.filter((valid, unit) => valid && !kept[unit]).length;
  byId('reset').hidden = removed === 0;
  if (!removed) {
    byId('answer').textContent = 'Press the buttons of the two rows to remove the visual part or the audio of segments; press again to restore them.';
    return;
  }
  const all = allKept();
  const [now, before] = [pooled(c, kept).logit, pooled(c, all).logit];
  const start = `Without ${removed} of ${record.units.filter(Boolean).length} parts, ${record.classes[c]} has `;
  if (!Number.isFinite(now)) {
    byId('answer').textContent = `${start}no logit, because the remaining parts have no weight.`;
    return;
  }
  const strong = (id, text) => element('strong', { id, className: 'number', textContent: text });
  byId('answer').replaceChildren(
    `${start}logit `, strong('what-if-logit', plainText(now)), ` (was ${plainText(before)}), probability `,
    strong('what-if-probability', percent(probabilities(kept)[c])), ` (was ${percent(probabilities(all)[c])})`,
    other === null ? '.' : `; margin over ${record.classes[other]} ${signedText(now - pooled(other, kept).logit)}.`,
  );
}

function contrastSentence(view, c, other) {
  const [a, b] = [record.classes[c], record.classes[other]];
  const order = view.logit >= 0 ? 'above' : 'below';
  const parts = `visual ${signedText(total(view.picture))}, audio ${signedText(total(view.sound))}, ${zeroName(other)} ${signedText(view.reference)}`;
  return `The logit of ${a} is ${plainText(Math.abs(view.logit))} ${order} that of ${b}: ${parts}.`;
}

// Shows the contribution of the cell under the pointer or the cursor; with `s` -1, that of the strongest cell of the clip.
function showCell(view, t, s, c, other) {
  const n = s < 0 ? strongestCell(view.cells) : t * CELLS + s;
  if (n < 0) {
    byId('cell').textContent = 'No cell is evidence for it.';
    return;
  }
  const inFrame = n % CELLS;
  const place = `${s < 0 ? 'The strongest: row' : 'Row'} ${Math.floor(inFrame / COLUMNS) + 1}, column ${(inFrame % COLUMNS) + 1} at ${segmentName(Math.floor(n / CELLS))}`;
  const contribution = `${place}: contributes ${signedText(view.cells[n])}, with ${percent(record.alpha[n])} of the spatial attention.`;
  const k = record.removed.indexOf(c);
  const removed = k < 0
    ? ` The effect of its removal was not computed for ${record.classes[c]}.`
    : ` Removing this cell alone from the whole clip changes the logit of ${record.classes[c]} by ${signedText(record.removed_cells[k * T * CELLS + n])} ` +
      '(exact, with the attention computed again).';
  byId('cell').textContent = other === null ? contribution + removed : `${contribution} This is the difference of the two contributions.`;
}

// ---------------------------------------------------------------------------------------------------------------------
// Checks
// ---------------------------------------------------------------------------------------------------------------------

function mapChange(correlation) {
  if (correlation === null) return 'An attention map is constant, so that there is no correlation.';
  const change = correlation > 0.9 ? 'hardly changes' : correlation > 0.5 ? 'changes partly' : 'changes';
  return `The attention map ${change} (correlation ${plainText(correlation)}).`;
}

function showList(list, rows) {
  byId(list).replaceChildren(...rows.map(([name, text]) =>
    element('div', {}, [element('dt', { textContent: name }), element('dd', { textContent: text })])));
}

const CHANGED_AUDIO = { silence: 'With silent audio', shifted_sound: 'With the audio shifted by half the clip' };

function distanceText({ distance, threshold }) {
  return `${distance.toFixed(2)} (limit ${threshold.toFixed(2)})`;
}

function showTrust(c) {
  const whole = terms(c, allKept());
  const error = Math.abs(whole.reference + total(whole.picture) + total(whole.sound) - whole.logit);
  const best = record.shown[0];
  const was = percent(probabilities(allKept())[best]);
  const prediction = (row) => (row.label === record.classes[best] ? `Still predicts ${row.label} with` : `Predicts ${row.label} instead; ${record.classes[best]} has`) +
    ` ${percent(row.probability)} (was ${was}). ${mapChange(row.map_correlation)}`;
  const checks = Object.entries(CHANGED_AUDIO).filter(([key]) => record.trust[key]).map(([key, name]) => [name, prediction(record.trust[key])]);
  const measured = record.trust.training_distance;
  if (measured) {
    const parts = Object.values(NAMES).filter((name) => measured[name]).map((name) => `${name} ${distanceText(measured[name])}`);
    checks.push(['Distance from the training clips', `${parts.join(', ')}; ` +
      `at most ${percent(measured.false_alarm_rate)} of clips like those of training exceed a limit`]);
  }
  const valid = record.valid.flatMap((v, t) => (v ? [record.null[t]] : []));
  showList('trust', [
    ['Sum of contributions', `differs from the logit by ${error.toExponential(0)}, recomputed here; relative error of all classes at most ${record.residual.toExponential(0)}`],
    ...checks,
    ...(PAIRED ? [['Attention on the null cell (no visible source)', `${percent(total(valid) / valid.length)} of the spatial attention, on average`]] : []),
    ['Size of a cell', cellSize()],
    ...(HALF_CELLS ? [['Map on half cells', finerText(whole)]] : []),
  ]);
}

function finerText(whole) {
  const sums = whole.picture.map((x, t) => x - total(whole.finer.subarray(t * HALF_CELLS, (t + 1) * HALF_CELLS)));
  return 'average over the frames shifted by half a cell; in every segment it adds up to the contributions of the cells, ' +
    `with a difference of at most ${largest(sums).toExponential(0)}, recomputed here`;
}

function cellSize() {
  const { x_scale: x, y_scale: y } = record.geometry.to_pixels;
  return `${Math.round(x / COLUMNS)} \u00d7 ${Math.round(y / ROWS)} of ${record.media.width} \u00d7 ${record.media.height} pixels`;
}

const LIMITS = [
  'Contributions are exact for features, not for pixels: the features of a cell also depend on its surroundings, as far as the network\u2019s receptive field reaches.',
  'A contribution is what a unit adds in this clip. Removing the unit gives its attention to the others, so the logit changes by another amount.',
  'Removing a segment on this page leaves the features of the others as they are. A video in which that segment is cut or muted could give other features.',
  'The network sees one frame per segment. What happens between these frames is not part of the visual contributions.',
  'The totals of visual and audio evidence are relative to the zero line, which is a convention: the average clip in training.',
  'The network knows only its own classes, and a high probability is not a measured rate of being correct.',
];

function showSource() {
  const { media, model } = record;
  byId('limits').replaceChildren(...LIMITS.map((text) => element('li', { textContent: text })));
  showList('source', [
    ['File', `${media.file}, seconds ${trimmed(media.start)} to ${trimmed(media.start + media.duration)}` + (media.file_duration ? ` of ${trimmed(media.file_duration)}` : '')],
    ['SHA-256', media.sha256],
    ['Model', `step ${model.step}, ${model.dtype}, parameters ${model.parameter_hash}, config ${model.config_hash}`],
    ['Versions', Object.entries(model.versions).map((pair) => pair.join(' ')).join(', ')],
  ]);
}

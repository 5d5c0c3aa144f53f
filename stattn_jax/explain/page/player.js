// The state of the page, the functions that show it, and the actions that change it.

// `time` is where the reader last went, null while that is nowhere.
const state = { c: record.chosen, other: null, kept: allKept(), overlay: true, signed: false, finer: HALF_CELLS > 0, cell: -1, t: 0, time: null };
let view = evidence(state.c, state.other, state.kept);
// The end of the colour scale, that of the untouched clip.
let scale = heatScale(view);
let frame = 0;
const clock = record.slides.length ? slideClock(() => tick()) : videoClock(() => tick());

function subject() {
  const name = record.classes[state.c];
  return state.other === null ? name : `${name} rather than ${record.classes[state.other]}`;
}

// Shows everything that depends on the state; `tick` shows what depends on the time alone.
function show() {
  view = evidence(state.c, state.other, state.kept);
  const whole = evidence(state.c, state.other, allKept());
  scale = heatScale(whole);
  drawBars(view, whole, state.kept);
  showUnits(state.kept);
  showTable(view, state.kept, subject());
  showClasses(state.c, state.kept);
  showSum(view, state.c, state.other, state.kept);
  showAnswer(state.c, state.other, state.kept);
  showTrust(state.c);
  drawScale(scale, state.signed);
  byId('scale-name').textContent = state.signed ? 'against (hatched), for' : 'evidence for';
  byId('sentence').textContent = state.other === null
    ? record.sentences[record.shown.indexOf(state.c)]
    : contrastSentence(whole, state.c, state.other);
  const notices = record.notices[record.shown.indexOf(state.c)];
  byId('notices').replaceChildren(...notices.map((text) => element('li', { textContent: text })));
  showButtons();
  place();
  writeAddress(stateText(state));
}

function showButtons() {
  const press = (id, on) => byId(id).setAttribute('aria-pressed', String(on));
  press('heat', state.overlay);
  press('signed', state.signed);
  press('finer', state.finer);
  byId('other').value = state.other ?? '';
  for (const option of byId('other').options) option.disabled = option.value === String(state.c);
  const n = strongestCell(view.cells);
  byId('strongest').disabled = n < 0;
  byId('strongest').lastElementChild.textContent = n < 0 ? 'no cell is evidence for it' : `strongest cell, ${segmentName(Math.floor(n / CELLS))}`;
}

function place() {
  drawOverlay(byId('overlay'), view, scale, state.t, state);
  byId('box-key').hidden = !boxesOf(state.t).length;
  showCell(view, state.t, state.cell, state.c, state.other);
  showPlace(clock.time, state.t, view, subject());
}

function tick() {
  const t = Math.max(0, Math.min(T - 1, Math.floor(clock.time / SECONDS + 1e-6)));
  if (t !== state.t) {
    state.t = t;
    clock.show?.(t);
    place();
  } else {
    showPlace(clock.time, t, view, subject());
  }
  const start = record.media.start;
  byId('clock').textContent = `${clock.time.toFixed(1)} / ${clock.length.toFixed(1)} s` + (start ? `, ${(start + clock.time).toFixed(1)} s of the file` : '');
  byId('play').textContent = clock.playing ? 'Pause' : 'Play';
  byId('mute').setAttribute('aria-pressed', String(clock.muted));
  // At most one animation frame is requested at a time.
  cancelAnimationFrame(frame);
  if (clock.playing) frame = requestAnimationFrame(tick);
}

// ---------------------------------------------------------------------------------------------------------------------
// Actions
// ---------------------------------------------------------------------------------------------------------------------

function seek(time) {
  state.time = Math.max(0, Math.min(clock.length - 1e-3, time));
  clock.seek(state.time);
  tick();
  writeAddress(stateText(state));
}

function choose(c) {
  Object.assign(state, { c, other: state.other === c ? runnerUp(c) : state.other });
  show();
}

// Compares with another class, or with none (null).
function contrast(other) {
  // A difference has two signs, so the heat map shows both.
  Object.assign(state, { other, signed: other !== null });
  show();
}

// The middle of the segment with the strongest cell or, where no cell is evidence for the class, with the largest sum.
function strongestTime() {
  const n = strongestCell(view.cells);
  const sums = view.picture.map((x, t) => x + view.sound[t]);
  return ((n < 0 ? sums.indexOf(Math.max(...sums)) : Math.floor(n / CELLS)) + 0.5) * SECONDS;
}

// Goes to the state that the address names; what it does not name is as when the page opens.
function restore() {
  const { unknown, time, ...named } = stateOf(location.hash.slice(1));
  Object.assign(state, named, { signed: named.other !== null });
  show();
  clock.seek(time ?? strongestTime());
  state.time = time;
  report(unknown.length ? `The link names what this page does not have: ${unknown.join(', ')}.` : '');
}

async function saveFigure() {
  const canvas = await figureCanvas();
  canvas.toBlob((blob) => save(blob, '.png'), 'image/png');
}

function showKeys() {
  if (byId('keys').open) byId('keys').close();
  else byId('keys').showModal();
}

// Removes units, or restores them if all of them are removed.
function toggle(units) {
  const restore = units.every((unit) => !state.kept[unit]);
  for (const unit of units) state.kept[unit] = restore ? 1 : 0;
  show();
}

function toggleOption(name) {
  state[name] = !state[name];
  if (name !== 'overlay') state.overlay = true;
  show();
}

function mute() {
  if (!clock.silent) clock.muted = !clock.muted;
  tick();
}

function moveSegments(by) {
  seek((state.t + by) * SECONDS + 1e-3);
}

const KEYS = {
  ' ': () => (clock.playing ? clock.pause() : clock.play()),
  ArrowLeft: () => seek(clock.time - clock.step),
  ArrowRight: () => seek(clock.time + clock.step),
  '[': () => moveSegments(-1),
  ']': () => moveSegments(1),
  Home: () => seek(0),
  End: () => seek(clock.length),
  m: mute,
  o: () => toggleOption('overlay'),
  s: () => toggleOption('signed'),
  f: () => HALF_CELLS && toggleOption('finer'),
  c: () => contrast(state.other === null ? runnerUp(state.c) : null),
  '?': showKeys,
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target, key } = event;
  // The focused element keeps its own keys: space presses buttons, arrows choose a class, Home scrolls the page.
  if (key === ' ' && target.matches('button, summary, input')) return;
  if (target.matches('select') || (byId('keys').open && key !== '?')) return;
  if (key.startsWith('Arrow') && target.matches('input')) return;
  if ((key === 'Home' || key === 'End') && target.id !== 'seek') return;
  if (target.id === 'overlay' && moveCell(key)) {
    event.preventDefault();
    return;
  }
  const c = record.shown[Number(key) - 1];
  const act = KEYS[key] ?? (/^[1-9]$/.test(key) && c !== undefined ? () => choose(c) : null);
  if (!act) return;
  event.preventDefault();
  act();
}

// Moves the cell cursor by an arrow key; returns whether it did.
function moveCell(key) {
  const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
  if (!by) return false;
  const [i, j] = state.cell < 0 ? [0, 0] : [Math.floor(state.cell / COLUMNS) + by[0], (state.cell % COLUMNS) + by[1]];
  state.cell = Math.max(0, Math.min(ROWS - 1, i)) * COLUMNS + Math.max(0, Math.min(COLUMNS - 1, j));
  place();
  return true;
}

function selectCell(s) {
  if (s === state.cell) return;
  state.cell = s;
  place();
}

function start() {
  const canvas = byId('overlay');
  // Without scripts, both stay hidden and the still in the noscript element takes their place.
  byId('main').hidden = byId('tools').hidden = false;
  byId('stage').style.aspectRatio = `${record.media.width} / ${record.media.height}`;
  byId('stage').parentElement.style.setProperty('--ratio', record.media.width / record.media.height);
  byId('strips').style.setProperty('--segments', T);
  byId('finer').hidden = !HALF_CELLS;
  byId('truth-key').hidden = !record.truth.intervals.length;
  byId('mute').hidden = clock.silent || !record.units.slice(T).some(Boolean);
  makeClasses(choose);
  makeUnits(toggle);
  makeSeek(seek);
  showSource();
  const actions = {
    play: KEYS[' '], previous: KEYS['['], next: KEYS[']'], mute,
    heat: KEYS.o, signed: KEYS.s, finer: KEYS.f, help: showKeys,
    reset: () => { state.kept = allKept(); show(); },
    strongest: () => seek(strongestTime()),
    link: () => { state.time = clock.time; writeAddress(stateText(state)); return copyText(location.href); },
    csv: () => save(new Blob([csvText(view, state.kept)], { type: 'text/csv' }), '.csv'),
    figure: saveFigure,
  };
  for (const [id, act] of Object.entries(actions)) byId(id).addEventListener('click', act);
  canvas.addEventListener('click', KEYS[' ']);
  canvas.addEventListener('pointermove', (event) => selectCell(cellAt(canvas, event.offsetX, event.offsetY)));
  canvas.addEventListener('pointerleave', () => selectCell(-1));
  canvas.addEventListener('blur', () => selectCell(-1));
  document.addEventListener('keydown', onKey);
  byId('other').addEventListener('change', (event) => contrast(event.target.value === '' ? null : Number(event.target.value)));
  window.addEventListener('hashchange', restore);
  new ResizeObserver(() => show()).observe(byId('bars'));
  new ResizeObserver(() => place()).observe(byId('stage'));
  restore();
  clock.show?.(0);
  tick();
}

start();

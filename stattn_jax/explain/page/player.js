// The page put together: one state, one function that shows it, and the hands that change it.

const state = {
  c: record.chosen, other: null, kept: allKept(), overlay: true, signed: false, cell: -1, t: 0,
};
let view = evidence(state.c, state.other, state.kept);
let frame = 0;
const clock = record.slides.length ? slideClock(() => tick()) : videoClock(() => tick());

function subject() {
  const name = record.classes[state.c];
  return state.other === null ? name : `${name} rather than ${record.classes[state.other]}`;
}

// Shows everything that follows from the state; `tick` what follows from the time alone.
function show() {
  view = evidence(state.c, state.other, state.kept);
  const whole = evidence(state.c, state.other, allKept());
  drawBars(view, whole, state.kept);
  showUnits(state.kept);
  showTable(view, state.kept, subject());
  showClasses(state.c, state.kept);
  showSum(view, state.c, state.other, state.kept);
  showAnswer(state.c, state.other, state.kept);
  showTrust(state.c);
  drawScale(view, state.signed);
  byId('scale-name').textContent = state.signed ? 'against (hatched), for' : 'cell speaks for';
  byId('sentence').textContent = state.other === null
    ? record.sentences[record.shown.indexOf(state.c)]
    : contrastSentence(whole, state.c, state.other);
  showButtons();
  place();
}

function showButtons() {
  const press = (id, on) => byId(id).setAttribute('aria-pressed', String(on));
  press('heat', state.overlay);
  press('signed', state.signed);
  press('contrast', state.other !== null);
  const next = runnerUp(state.c);
  byId('contrast').hidden = next === null;
  if (next !== null) byId('contrast').textContent = `Why not ${record.classes[next]}?`;
  const n = strongestCell(view.cells);
  byId('strongest').disabled = n < 0;
  byId('strongest').lastElementChild.textContent = n < 0 ? 'no cell speaks for it' : `strongest cell, ${secondName(Math.floor(n / CELLS))}`;
}

function place() {
  drawOverlay(byId('overlay'), view, state.t, state);
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
  // One frame is asked for at most, however many events come between two of them.
  cancelAnimationFrame(frame);
  if (clock.playing) frame = requestAnimationFrame(tick);
}

// ---------------------------------------------------------------------------------------------------------------------
// Hands
// ---------------------------------------------------------------------------------------------------------------------

function seek(time) {
  clock.seek(Math.max(0, Math.min(clock.length - 1e-3, time)));
  tick();
}

function choose(c) {
  Object.assign(state, { c, other: state.other === null ? null : runnerUp(c) });
  show();
}

function contrast() {
  const other = state.other === null ? runnerUp(state.c) : null;
  // A difference has two sides, so that its heat does too.
  Object.assign(state, { other, signed: other !== null });
  show();
}

// Takes units away, or puts them back where all of them are away.
function toggle(units) {
  const back = units.every((unit) => !state.kept[unit]);
  for (const unit of units) state.kept[unit] = back ? 1 : 0;
  show();
}

function turn(name) {
  state[name] = !state[name];
  if (name === 'signed') state.overlay = true;
  show();
}

function mute() {
  if (!clock.silent) clock.muted = !clock.muted;
  tick();
}

function toSecond(by) {
  seek((state.t + by) * SECONDS + 1e-3);
}

const KEYS = {
  ' ': () => (clock.playing ? clock.pause() : clock.play()),
  ArrowLeft: () => seek(clock.time - clock.step),
  ArrowRight: () => seek(clock.time + clock.step),
  '[': () => toSecond(-1),
  ']': () => toSecond(1),
  Home: () => seek(0),
  End: () => seek(clock.length),
  m: mute,
  o: () => turn('overlay'),
  s: () => turn('signed'),
  c: contrast,
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target, key } = event;
  // What has the focus keeps its own keys: space presses buttons, arrows walk along classes, Home scrolls the page.
  if (key === ' ' && target.matches('button, summary, input')) return;
  if (key.startsWith('Arrow') && target.matches('input')) return;
  if ((key === 'Home' || key === 'End') && target.id !== 'seek') return;
  if (target.id === 'overlay' && walk(key)) {
    event.preventDefault();
    return;
  }
  const c = record.shown[Number(key) - 1];
  const act = KEYS[key] ?? (/^[1-9]$/.test(key) && c !== undefined ? () => choose(c) : null);
  if (!act) return;
  event.preventDefault();
  act();
}

// Moves the cell cursor by an arrow key; whether it did.
function walk(key) {
  const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
  if (!by) return false;
  const [i, j] = state.cell < 0 ? [0, 0] : [Math.floor(state.cell / COLUMNS) + by[0], (state.cell % COLUMNS) + by[1]];
  state.cell = Math.max(0, Math.min(ROWS - 1, i)) * COLUMNS + Math.max(0, Math.min(COLUMNS - 1, j));
  place();
  return true;
}

function point(s) {
  if (s === state.cell) return;
  state.cell = s;
  place();
}

function start() {
  const canvas = byId('overlay');
  byId('stage').style.aspectRatio = `${record.media.width} / ${record.media.height}`;
  byId('stage').style.setProperty('--ratio', record.media.width / record.media.height);
  byId('strips').style.setProperty('--segments', T);
  byId('cell-size').textContent = `one cell: ${cellSize()}`;
  byId('truth-key').hidden = !record.truth.intervals.length;
  byId('box-key').hidden = !record.truth.boxes.length;
  byId('mute').hidden = clock.silent;
  makeClasses(choose);
  makeUnits(toggle);
  makeSeek(seek);
  showMade();
  const hands = {
    play: KEYS[' '], previous: KEYS['['], next: KEYS[']'], mute, contrast,
    heat: KEYS.o, signed: KEYS.s,
    reset: () => { state.kept = allKept(); show(); },
    strongest: () => seek((Math.floor(strongestCell(view.cells) / CELLS) + 0.5) * SECONDS),
  };
  for (const [id, act] of Object.entries(hands)) byId(id).addEventListener('click', act);
  canvas.addEventListener('click', KEYS[' ']);
  canvas.addEventListener('pointermove', (event) => point(cellAt(canvas, event.offsetX, event.offsetY)));
  canvas.addEventListener('pointerleave', () => point(-1));
  canvas.addEventListener('blur', () => point(-1));
  document.addEventListener('keydown', onKey);
  new ResizeObserver(() => show()).observe(byId('bars'));
  new ResizeObserver(() => place()).observe(byId('stage'));
  clock.show?.(0);
  show();
  tick();
}

start();

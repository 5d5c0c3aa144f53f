// Connects the chart of a long video with its player, the panel of the current segment and the table of windows.

const byId = (id) => document.getElementById(id);
const record = JSON.parse(byId('data').textContent);
const video = byId('video');
const slider = byId('slider');
const rows = [...byId('windows').children];
let current = -1;

function clockTime(seconds) {
  const tenths = Math.round(seconds * 10);
  const [hours, minutes, rest] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, tenths % 600];
  const second = String(Math.floor(rest / 10)).padStart(2, '0') + (rest % 10 ? `.${rest % 10}` : '');
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${second}` : `${minutes}:${second}`;
}

const span = (start, end) => `${clockTime(start)} to ${clockTime(end)}`;
const percent = (x) => (x > 0 && x < 0.01 ? 'below 1%' : x < 1 && x > 0.99 ? 'above 99%' : `${Math.round(100 * x)}%`);
const signed = (x) => (x < 0 ? '\u2212' : '+') + Math.abs(x).toFixed(2);

function tableRow(cells) {
  const row = document.createElement('tr');
  for (const text of cells) row.append(Object.assign(document.createElement('td'), { textContent: text }));
  return row;
}

function showPage(shown) {
  const place = byId('now-page');
  if (shown.page) {
    const link = Object.assign(document.createElement('a'), { href: shown.page, textContent: `Explanation of ${span(shown.start, shown.end)}` });
    place.replaceChildren(link);
    return;
  }
  place.textContent = `This window is not among the explained ones; explain it with --start=${shown.start} --end=${shown.end}, or more of them with --top_windows.`;
}

// Shows segment g: its window, the classes of that window, its evidence, and the row of the table.
function show(g) {
  if (g === current) return;
  current = g;
  const [k, picture, sound] = record.rows[g];
  const start = record.start + g * record.seconds;
  const shown = k === null ? null : record.windows[k];
  byId('now-title').textContent = span(start, start + record.seconds);
  byId('now-window').textContent = shown ? `in the window ${span(shown.start, shown.end)}` : 'no video or no audio here';
  byId('best').replaceChildren(...(shown ? shown.best.map(([label, x]) => tableRow([label, percent(x)])) : []));
  byId('now-evidence').textContent = shown ? `For ${shown.best[0][0]}, this segment adds ${signed(picture)} (visual) and ${signed(sound)} (audio) to the logit.` : '';
  if (shown) showPage(shown);
  else byId('now-page').replaceChildren();
  for (const row of rows) row.classList.toggle('here', Number(row.dataset.window) === k);
  slider.setAttribute('aria-valuenow', g);
  const best = shown ? `, ${shown.best[0][0]} ${percent(shown.best[0][1])}` : ', no data';
  slider.setAttribute('aria-valuetext', span(start, start + record.seconds) + best);
}

function place(seconds) {
  const share = `${Math.min(100, (100 * seconds) / (record.rows.length * record.seconds))}%`;
  byId('head').setAttribute('x1', share);
  byId('head').setAttribute('x2', share);
  show(Math.max(0, Math.min(record.rows.length - 1, Math.floor(seconds / record.seconds + 1e-6))));
}

function seek(seconds) {
  const to = Math.max(0, Math.min(record.rows.length * record.seconds - 0.01, seconds));
  if (video) video.currentTime = to;
  place(to);
  const [view, left] = [byId('scroll'), (to / (record.rows.length * record.seconds)) * byId('chart').clientWidth];
  if (left < view.scrollLeft || left > view.scrollLeft + view.clientWidth) view.scrollLeft = left - view.clientWidth / 2;
}

function onKey(event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -record.hop, PageDown: record.hop };
  const page = record.windows[record.rows[current][0]]?.page;
  if (event.key in steps) seek((current + steps[event.key]) * record.seconds);
  else if (event.key === 'Home') seek(0);
  else if (event.key === 'End') seek((record.rows.length - 1) * record.seconds);
  else if (event.key === ' ' && video) video.paused ? video.play() : video.pause();
  else if (event.key === 'Enter' && page && event.target === slider) location.href = page;
  else return;
  event.preventDefault();
}

byId('chart').addEventListener('click', (event) => {
  if (event.target.closest('a')) return;
  const box = byId('chart').getBoundingClientRect();
  seek(((event.clientX - box.left) / box.width) * record.rows.length * record.seconds);
});
byId('windows').addEventListener('click', (event) => {
  const row = event.target.closest('tr');
  if (row && !event.target.closest('a')) seek(record.windows[row.dataset.window].start - record.start);
});
for (const [name, value] of Object.entries({ role: 'slider', tabindex: 0, 'aria-valuemin': 0, 'aria-valuemax': record.rows.length - 1 })) slider.setAttribute(name, value);
// The children of a slider are no stops of the Tab key; Enter opens a window, and the table has the same links.
for (const link of byId('chart').querySelectorAll('a')) link.setAttribute('tabindex', -1);
slider.addEventListener('keydown', onKey);
if (video) for (const name of ['timeupdate', 'seeked', 'loadedmetadata']) video.addEventListener(name, () => place(video.currentTime));
byId('now').hidden = byId('help').hidden = false;
place(video ? video.currentTime : 0);

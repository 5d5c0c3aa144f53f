// Searches, filters and sorts the cards. Clips without the chosen number come last in both directions.

const byId = (id) => document.getElementById(id);
const cards = [...byId('cards').children];
const failed = [...(byId('failures')?.children ?? [])];
const cells = [...document.querySelectorAll('#confusion button')];
const controls = ['search', 'class', 'result', 'sort'].map(byId);

function holds(text, words) {
  return words.every((word) => text.toLowerCase().includes(word));
}

function compare(key, direction) {
  const number = (card) => (card.dataset[key] === '' ? null : Number(card.dataset[key]));
  const order = (a, b) => a.dataset.order - b.dataset.order;
  if (key === 'title') return (a, b) => a.dataset.title.localeCompare(b.dataset.title, undefined, { numeric: true }) || order(a, b);
  return (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x === null || y === null) return (x === null) - (y === null) || order(a, b);
    return direction * (x - y) || order(a, b);
  };
}

// The button of the confusion matrix that is pressed, or undefined.
function chosen() {
  return cells.find((cell) => cell.getAttribute('aria-pressed') === 'true');
}

function choose(pressed) {
  for (const cell of cells) cell.setAttribute('aria-pressed', cell === pressed);
  show();
}

function show() {
  const pair = chosen()?.dataset;
  const words = byId('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  const [label, result] = [byId('class').value, byId('result').value];
  for (const card of cards) {
    const { title, label: predicted, true: known } = card.dataset;
    card.hidden = !holds(`${title} ${predicted} ${known}`, words) || (label && label !== predicted && label !== known)
      || (result && result !== card.dataset.result)
      || (pair && (pair.true !== known || pair.predicted !== predicted));
  }
  for (const row of failed) row.hidden = !holds(row.textContent, words);
  const [key, direction] = byId('sort').value.split(' ');
  byId('cards').append(...cards.sort(compare(key, Number(direction))));
  const visible = cards.filter((card) => !card.hidden).length;
  byId('shown').textContent = `${visible} of ${cards.length} shown`;
  byId('reset').disabled = !pair && controls.every((control) => control.value === (control.id === 'sort' ? 'order 1' : ''));
}

function reset() {
  for (const control of controls) control.value = control.id === 'sort' ? 'order 1' : '';
  choose();
  byId('search').focus();
}

byId('result').parentElement.hidden = byId('result').options.length === 1;
byId('filters').hidden = cards.length < 2;
for (const control of controls) control.addEventListener('input', show);
for (const cell of cells) cell.addEventListener('click', () => choose(cell === chosen() ? undefined : cell));
byId('reset').addEventListener('click', reset);
// A browser that comes back to the page may have kept the choices.
window.addEventListener('pageshow', show);

// Sorts the cards. Clips without the chosen number come last in both directions.

function sortCards() {
  const select = document.getElementById('sort');
  const list = document.getElementById('cards');
  const [key, direction] = select.value.split(' ');
  const number = (card) => (card.dataset[key] === '' ? null : Number(card.dataset[key]));
  const cards = [...list.children].sort((a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x === null || y === null) return (x === null) - (y === null) || a.dataset.order - b.dataset.order;
    return Number(direction) * (x - y) || a.dataset.order - b.dataset.order;
  });
  list.append(...cards);
  const unknown = cards.filter((card) => number(card) === null).length;
  document.getElementById('sorted').textContent =
    `Sorted: ${select.selectedOptions[0].text}` + (unknown ? `; ${unknown} without this number ${unknown === 1 ? 'comes' : 'come'} last.` : '.');
}

document.getElementById('sort').addEventListener('change', sortCards);

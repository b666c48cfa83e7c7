// A click on a column's head sorts its table by that column; the second click turns the order around.
for (const button of document.querySelectorAll('table.sortable th button')) {
  button.addEventListener('click', () => {
    const head = button.parentElement, body = head.closest('table').tBodies[0];
    const down = head.getAttribute('aria-sort') !== 'descending';
    for (const other of head.parentElement.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const key = row => row.cells[head.cellIndex].dataset.value ?? '';
    const order = (a, b) => {
      if (key(a) === '' || key(b) === '') return (key(a) === '') - (key(b) === ''); // cells without a value stay below
      const by = isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
      return down ? -by : by;
    };
    body.append(...[...body.rows].sort(order));
  });
}

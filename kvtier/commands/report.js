// A click on a table's head sorts by that column; a second one turns it round.
for (const head of document.querySelectorAll("thead th")) {
  head.addEventListener("click", () => {
    const row = head.parentElement, body = row.closest("table").tBodies[0], at = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending", way = up ? 1 : -1;
    for (const other of row.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const compare = (a, b) => {
      const [x, y] = [a.cells[at], b.cells[at]];
      if (x.dataset.value !== undefined && y.dataset.value !== undefined) return x.dataset.value - y.dataset.value;
      return x.textContent.localeCompare(y.textContent);
    };
    body.append(...[...body.rows].sort((a, b) => way * compare(a, b)));
  });
}

"use strict";
// Clicking a column heading sorts the rows within each part of the table. Numbers come from
// data-value; cells without one come last in either direction.
const tables = (() => {
  const valueOf = (row, column, isNumber) => {
    const cell = row.cells[column];
    if (cell === undefined) return null; // of a row that spans the table
    if (!isNumber) return cell.textContent.trim().toLowerCase() || null;
    const value = parseFloat(cell.dataset.value);
    return Number.isFinite(value) ? value : null;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  };
  // Sort by a heading in its direction; does nothing for one that has none.
  const sort = (table, heading) => {
    const direction = heading.getAttribute("aria-sort");
    if (direction === null) return;
    const isNumber = heading.classList.contains("number");
    const sign = direction === "ascending" ? 1 : -1;
    for (const part of table.tBodies) {
      const rows = [...part.rows].map((row) => [valueOf(row, heading.cellIndex, isNumber), row]);
      const sorted = [...rows].sort(([a], [b]) => compare(a, b, sign));
      if (sorted.some((row, place) => row !== rows[place])) {
        part.append(...sorted.map(([, row]) => row));
      }
    }
  };
  const turn = (table, heading) => {
    const isNumber = heading.classList.contains("number");
    const first = isNumber ? "descending" : "ascending";
    const other = isNumber ? "ascending" : "descending";
    const direction = heading.getAttribute("aria-sort") === first ? other : first;
    for (const cell of heading.parentElement.cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    sort(table, heading);
  };
  const makeSortable = (root) => {
    for (const table of root.querySelectorAll("table.sortable")) {
      for (const heading of table.tHead.rows[0].cells) {
        const button = document.createElement("button");
        button.type = "button";
        button.append(...heading.childNodes);
        button.addEventListener("click", () => turn(table, heading));
        heading.append(button);
      }
    }
  };
  makeSortable(document);
  return { makeSortable, sort };
})();

const number = (text) => (text === "" || Number.isNaN(Number(text)) ? null : Number(text));

function order(one, other) {
  if (one === undefined || other === undefined) return (one === undefined) - (other === undefined);
  const [left, right] = [number(one), number(other)];
  if (left !== null && right !== null) return left - right;
  return one.localeCompare(other);
}

function sort(table, place) {
  const heads = [...table.tHead.rows[0].cells];
  const down = heads[place].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[place].setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => {
    const [given, text] = [row.cells[place].dataset.sort, row.cells[place].textContent.trim()];
    return given ?? (text === "–" || text === "-" ? undefined : text.toLowerCase());
  };
  const rows = [...table.tBodies[0].rows].sort((one, other) => {
    const [left, right] = [key(one), key(other)];
    const known = left !== undefined && right !== undefined;
    return known && down ? order(right, left) : order(left, right);
  });
  table.tBodies[0].append(...rows);
}

function show(part) {
  const sought = (part.querySelector(".filter")?.value ?? "").trim().toLowerCase();
  const words = [...part.querySelectorAll('.toggle[aria-pressed="true"]')].map((button) => button.dataset.word);
  const rows = [...part.querySelectorAll("tbody tr")];
  let count = 0;
  for (const row of rows) {
    const cells = [...row.cells].map((cell) => cell.textContent.trim().toLowerCase());
    const fits = words.length === 0 || cells.some((cell) => words.some((word) => cell === word || cell.startsWith(word + " (")));
    row.hidden = !(fits && cells.some((cell) => cell.includes(sought)));
    count += !row.hidden;
  }
  part.querySelector(".shown").textContent = count === rows.length ? "" : `${count} of ${rows.length} rows`;
}

for (const part of document.querySelectorAll(".table")) {
  const table = part.querySelector("table");
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    head.querySelector("button").addEventListener("click", () => sort(table, place));
  });
  part.querySelector(".filter")?.addEventListener("input", () => show(part));
  for (const button of part.querySelectorAll(".toggle")) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      show(part);
    });
  }
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

const config = {
  background: null,
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: {
    labelColor: "var(--ink)", titleColor: "var(--soft)", titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12,
    gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)",
  },
  axisX: { labelOverlap: true, labelSeparation: 8 },
  legend: { labelColor: "var(--ink)", labelFontSize: 12, symbolSize: 70 },
};

const specs = document.getElementById("specs");
if (specs) {
  const parsed = JSON.parse(specs.textContent);
  await Promise.all([...document.querySelectorAll(".chart")].map((place) => {
    const narrow = place.clientWidth < 420;
    const axis = narrow ? { labelLimit: 110, titleLimit: place.clientWidth - 30 } : {};
    const spec = { width: "container", autosize: { type: "fit", contains: "padding" }, ...parsed[place.dataset.chart] };
    return vegaEmbed(place, spec, { actions: false, renderer: "svg", mode: "vega-lite", config: { ...config, axis: { ...config.axis, ...axis } } });
  }));
}
document.documentElement.dataset.ready = "yes";

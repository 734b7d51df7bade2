const { charts, themes } = JSON.parse(document.getElementById("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const all = (what, within = document) => [...within.querySelectorAll(what)];

// What the filter leaves out: of each name, the values whose boxes are not checked.
const left = { method: new Set(), kept: new Set() };
const stays = (own) => !Object.entries(left).some(([name, values]) => values.has(own[name]));

// Charts hold their rows in the layers or, gathered by name, at the top.
function filtered(chart) {
  const copy = { ...chart };
  if (chart.data?.values) copy.data = { ...chart.data, values: chart.data.values.filter(stays) };
  if (chart.datasets) {
    copy.datasets = Object.fromEntries(Object.entries(chart.datasets).map(([name, rows]) => [name, rows.filter(stays)]));
  }
  if (chart.layer) copy.layer = chart.layer.map(filtered);
  return copy;
}

// Vega cannot restyle a chart, so a change between light and dark draws it anew; `finalize` frees the old one.
async function draw(place) {
  const look = dark.matches ? "dark" : "light";
  const options = { mode: "vega-lite", renderer: "svg", actions: false, config: themes[look], tooltip: { theme: look } };
  const { view } = await vegaEmbed(place, filtered(charts[place.dataset.chart]), options);
  place.view?.finalize();
  place.view = view;
}

// One after another: the first charts appear at once instead of all at the end. What is folded away has no width yet.
const open = () => all("[data-chart]").filter((place) => !place.closest("details:not([open])"));
function drawInTurn(places) {
  return places.reduce((before, place) => before.then(() => draw(place)), Promise.resolve());
}

drawInTurn(open());
dark.addEventListener("change", () => drawInTurn(open()));
document.addEventListener(
  "toggle",
  (event) => {
    if (event.target.open) drawInTurn(all("[data-chart]", event.target).filter((place) => !place.view));
    overflowing();
  },
  true,
);

function filter(form) {
  for (const name of Object.keys(left)) {
    left[name] = new Set(all(`input[name=${name}]:not(:checked)`, form).map((box) => box.value));
  }
  for (const own of all("[data-method], [data-kept]")) own.hidden = !stays(own.dataset);
  const rows = all(".verdicts tbody");
  const shown = rows.filter((row) => !row.hidden).length;
  form.querySelector("[data-status]").textContent = rows.length && shown < rows.length ? `${shown} of ${rows.length} tickets` : "";
  drawInTurn(open());
  overflowing();
}

for (const form of all("form.filter")) {
  form.hidden = false;
  form.addEventListener("change", () => filter(form));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector("[data-all]").addEventListener("click", () => {
    for (const box of all("input", form)) box.checked = true;
    filter(form);
  });
}

// Says of each table whether there is more to the right.
function overflowing() {
  for (const table of all(".table")) {
    const scroll = table.querySelector(".scroll");
    const more = scroll.scrollWidth - scroll.clientWidth;
    table.querySelector(".wider").hidden = more < 2;
    table.classList.toggle("right", more - scroll.scrollLeft > 2);
  }
}
for (const scroll of all(".table > .scroll")) scroll.addEventListener("scroll", overflowing, { passive: true });
window.addEventListener("resize", overflowing);
overflowing();

function save(name, address) {
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
}

// Numbers as programs read them; a text that a spreadsheet would take for a formula is quoted.
function cell(text) {
  const plain = text.trim().replaceAll("\u2212", "-").replaceAll(/\s+/g, " ");
  const safe = /^[=+\-@]/.test(plain) && !/^[+-]?[\d.]+%?$/.test(plain) ? `'${plain}` : plain;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csv(button) {
  const table = button.closest(".table").querySelector("table");
  const lines = [];
  for (const row of all("tr", table).filter((own) => !own.closest("[hidden]"))) {
    const cells = all("th, td", row).map((own) => cell(own.textContent));
    if (row.matches(".why")) lines.at(-1).push(...cells);  // it belongs to the row above
    else lines.push(cells);
  }
  if (table.querySelector(".why")) lines[0].push("why");
  const text = lines.map((cells) => cells.join(",")).join("\r\n");
  const file = new Blob(["\ufeff", text, "\r\n"], { type: "text/csv" });
  save(`${button.dataset.csv.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.csv`, URL.createObjectURL(file));
}

async function png(button) {
  const picture = new Image();
  picture.src = button.parentElement.querySelector("a[download$='.svg']").href;
  await picture.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * picture.width, height: 2 * picture.height });
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  save(`${button.dataset.png}.png`, canvas.toDataURL("image/png"));
}

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {  // Browsers refuse the clipboard to pages opened as files.
    window.getSelection().selectAllChildren(code);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

document.addEventListener("click", (event) => {
  for (const [name, act] of Object.entries({ copy, csv, png })) {
    const button = event.target.closest(`button[data-${name}]`);
    if (button) act(button);
  }
});

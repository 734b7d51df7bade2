// A filter above tables of claims: words, and answers. Without JavaScript the tables are whole.
function filterOf(tables) {
  const rows = tables.flatMap(({ table, place }) =>
    [...table.tBodies[0].rows].map((row) => {
      const outcome = row.cells[place].textContent.replace(/\(.*/s, "").trim();  // what stands in parentheses is of this claim alone
      return { row, outcome, text: row.textContent.toLowerCase() };
    }),
  );
  const outcomes = [...new Set(rows.map((own) => own.outcome))].sort();
  const form = document.createElement("form");
  form.className = "claims-filter";
  form.setAttribute("aria-label", "Show only some claims");
  const words = Object.assign(document.createElement("input"), { type: "search", placeholder: "Words, as snip or ResNet" });
  words.setAttribute("aria-label", "Words that a claim must hold");
  const chosen = document.createElement("fieldset");
  chosen.append(Object.assign(document.createElement("legend"), { textContent: "Answer" }));
  for (const outcome of outcomes) {
    const label = document.createElement("label");
    label.append(Object.assign(document.createElement("input"), { type: "checkbox", checked: true, value: outcome }), outcome);
    chosen.append(label);
  }
  const count = document.createElement("span");
  count.setAttribute("role", "status");
  form.append(words, chosen, count);

  const show = () => {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const boxes = new Set([...chosen.querySelectorAll("input:checked")].map((box) => box.value));
    let shown = 0;
    for (const { row, outcome, text } of rows) {
      row.hidden = !(boxes.has(outcome) && asked.every((word) => text.includes(word)));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${rows.length} claims`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
  return form;
}

function enhance() {
  const tables = [...document.querySelectorAll("article table")]
    .map((table) => ({ table, place: [...table.rows[0].cells].findIndex((cell) => ["outcome", "answer"].includes(cell.textContent.trim())) }))
    .filter(({ table, place }) => place >= 0 && table.tBodies[0].rows.length > 5);
  if (!tables.length || document.querySelector(".claims-filter")) return;
  const first = tables[0].table.closest(".md-typeset__scrollwrap") ?? tables[0].table;
  first.before(filterOf(tables));
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", enhance);
else enhance();

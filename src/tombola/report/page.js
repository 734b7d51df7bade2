const { charts, themes } = JSON.parse(document.getElementById("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

// Vega cannot restyle a chart, so a change between light and dark draws it anew; `finalize` frees the old one.
async function draw(place) {
  const look = dark.matches ? "dark" : "light";
  const options = { mode: "vega-lite", renderer: "svg", actions: false, config: themes[look], tooltip: { theme: look } };
  const { view } = await vegaEmbed(place, charts[place.dataset.chart], options);
  place.view?.finalize();
  place.view = view;
}

// One after another: the first charts appear at once instead of all at the end.
function drawInTurn(places) {
  return places.reduce((before, place) => before.then(() => draw(place)), Promise.resolve());
}

const places = [...document.querySelectorAll("[data-chart]")];
drawInTurn(places);
dark.addEventListener("change", () => drawInTurn(places));

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
  const button = event.target.closest("button[data-copy]");
  if (button) copy(button);
});

"use strict";
// Draws figures when they come into view, and shows what is new when the server says that something is.

const PAUSE = 5000; // milliseconds between two drawings of a figure
const SOON = 300, LATER = 2000; // milliseconds until what is new is shown, and between two times
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: "hover" };
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function themed(made) {
  const ink = style("--ink"), edge = style("--edge"), paper = style("--paper"), clear = "rgba(0,0,0,0)";
  const layout = { ...structuredClone(made.layout), title: undefined, width: undefined, paper_bgcolor: clear, plot_bgcolor: clear };
  layout.font = { ...layout.font, color: ink, family: getComputedStyle(document.body).fontFamily };
  layout.modebar = { bgcolor: clear, color: style("--faint"), activecolor: ink };
  layout.margin = { ...layout.margin, t: 44 };
  for (const [name, axis] of Object.entries(layout)) {
    if (/^[xy]axis\d*$/.test(name)) layout[name] = { ...axis, automargin: true, gridcolor: edge, linecolor: edge, zerolinecolor: edge };
    if (/^legend\d*$/.test(name)) layout[name] = { ...axis, bgcolor: axis.orientation === "h" ? clear : paper };
  }
  layout.annotations = (layout.annotations || []).map(note => ({
    ...note,
    bgcolor: note.bgcolor === "white" ? paper : note.bgcolor,
    bordercolor: note.bordercolor === "#000000" ? ink : note.bordercolor,
  }));
  const data = structuredClone(made.data); // Plotly writes into what it is given
  for (const trace of data)
    for (const part of [trace.line, trace.marker]) if (part?.color === "#000000") part.color = ink;
  return { data, layout };
}

async function draw(plot) {
  if (plot.busy || Date.now() - (plot.drawn || 0) < PAUSE) return;
  plot.busy = true;
  try {
    const made = await (await fetch(plot.dataset.src)).json();
    if (made.trouble) {
      plot.textContent = made.trouble;
      plot.dataset.state = "none";
    } else {
      if (!plot.made) plot.textContent = "";
      plot.made = made;
      const { data, layout } = themed(made);
      await Plotly.react(plot, data, layout, CONFIG);
      plot.dataset.state = "drawn";
    }
  } catch (error) {
    plot.dataset.state = "failed";
    if (!plot.made) plot.textContent = "the server does not answer";
  } finally {
    plot.busy = false;
    plot.drawn = Date.now();
  }
}

const seen = new IntersectionObserver(entries => {
  for (const entry of entries) {
    entry.target.inView = entry.isIntersecting;
    if (entry.isIntersecting) draw(entry.target);
  }
}, { rootMargin: "200px" });

const plots = () => [...document.querySelectorAll(".plot")];
plots().forEach(plot => seen.observe(plot));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots().forEach(plot => {
  if (plot.made) { const { data, layout } = themed(plot.made); Plotly.react(plot, data, layout); }
}));

// What is new: parts of the same page, asked for again. Whoever types or has gone to a link stays where they are.
async function renew() {
  const response = await fetch(location.href);
  if (!response.ok) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (!other || part.innerHTML === other.innerHTML) continue;
    const active = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    part.innerHTML = other.innerHTML;
    if (active !== null) part.querySelector(`a[href="${CSS.escape(active)}"]`)?.focus();
  }
  for (const plot of plots()) if (plot.inView) draw(plot);
}

const live = document.body.dataset.live;
if (live) {
  const note = document.getElementById("live");
  const source = new EventSource(live);
  let waiting = false, last = 0;
  source.addEventListener("version", event => {
    note.textContent = "live";
    if (!event.data || waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; last = Date.now(); renew(); }, Math.max(SOON, last + LATER - Date.now()));
  });
  source.onerror = () => { note.textContent = "not connected"; };
}

"use strict";
// Draws figures when they come into view, and shows what is new when the server says that something is.

const SOON = 300; // milliseconds until what is new is shown
const SHARE = 20, LATER = 2000, LATEST = 20000; // it then waits so many times as long as that took, between these bounds
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

let changes = 0; // that the server has told of

async function draw(plot) {
  if (plot.busy || plot.changes === changes) return;
  plot.busy = true;
  plot.changes = changes;
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
    plot.changes = undefined; // it is asked for again
    if (!plot.made) plot.textContent = "the server does not answer";
  } finally {
    plot.busy = false;
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
}

async function redraw() {
  for (const plot of plots()) if (plot.inView) await draw(plot);
}

const sleep = time => new Promise(done => setTimeout(done, time));
const frame = () => new Promise(done => requestAnimationFrame(done)); // none comes while the page is hidden

// Does some work whenever it is asked to, but waits after each time: asked often, it leaves a processor to searches.
function paced(work) {
  let asked = false, busy = false;
  return async () => {
    asked = true;
    if (busy) return;
    busy = true;
    while (asked) {
      await sleep(SOON);
      await frame();
      asked = false;
      const begun = performance.now();
      try { await work(); } catch (error) { console.warn(error.message); } // the server is gone, which the note says
      await frame(); // what is new is painted now
      await sleep(Math.min(LATEST, Math.max(LATER, SHARE * (performance.now() - begun))));
    }
    busy = false;
  };
}

const live = document.body.dataset.live;
if (live) {
  const note = document.getElementById("live");
  const source = new EventSource(live);
  const show = [paced(renew), paced(redraw)];
  source.addEventListener("version", event => {
    note.textContent = "live";
    if (!event.data) return;
    changes += 1;
    for (const part of show) part();
  });
  source.onerror = () => { note.textContent = "not connected"; };
}

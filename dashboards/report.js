"use strict";
(async () => {
  const PRINTED_WIDTH = 680;
  const PRINTED_HEIGHT = 330;  // of what is no higher than 500 on the screen: two to a page
  const places = [...document.querySelectorAll("[data-plot]")];
  const scrollers = [...document.querySelectorAll(".scroll")];

  // What scrolls can be reached by keyboard; what does not is no stop.
  const watchScrollers = () => scrollers.forEach((each) => {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
    else each.removeAttribute("tabindex");
  });
  watchScrollers();
  addEventListener("resize", watchScrollers);
  document.addEventListener("toggle", watchScrollers, true);
  if (!places.length) return;

  const unpacked = async (id) => {
    const packed = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const run = (source) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    script.onload = resolve;
    script.onerror = reject;
    document.head.append(script);
  });

  let drawn;
  try {
    await run(await unpacked("library"));
    drawn = JSON.parse(await unpacked("plots-data"));
  } catch {
    const words = "This browser cannot draw the plots; their numbers are in the tables.";
    places.forEach((place) => { place.textContent = words; place.style.minHeight = "0"; });
    return;
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const template = () => drawn.templates[dark.matches ? "dark" : "light"];
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  for (const place of places) {
    const { data, layout } = drawn.figures[place.dataset.plot];
    await Plotly.newPlot(place, data, { ...layout, template: template() }, config);
  }
  dark.addEventListener("change", () => {
    places.forEach((place) => Plotly.relayout(place, { template: template() }));
  });
  const height = (place) => drawn.figures[place.dataset.plot].layout.height;
  addEventListener("beforeprint", () => places.forEach((place) => {
    const printed = height(place) > 500 ? height(place) : PRINTED_HEIGHT;
    const size = { width: PRINTED_WIDTH, height: printed };
    Plotly.relayout(place, { template: drawn.templates.light, ...size });
  }));
  addEventListener("afterprint", () => places.forEach((place) => {
    const size = { width: null, autosize: true, height: height(place) };
    Plotly.relayout(place, { template: template(), ...size });
  }));
  document.documentElement.dataset.drawn = "";
})();

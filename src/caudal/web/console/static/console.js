// The console's own script: menu, filters, charts and live values. No framework, nothing inline, no eval.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const language = root.lang;

  // menu on small screens
  const button = document.querySelector(".menu-button");
  const menu = document.getElementById("menu");
  if (button && menu) {
    const set = (open) => {
      menu.classList.toggle("open", open);
      button.setAttribute("aria-expanded", String(open));
    };
    button.addEventListener("click", () => set(!menu.classList.contains("open")));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && menu.classList.contains("open")) {
        set(false);
        button.focus();
      }
    });
  }

  // what was done is said once: a reload must not say it again
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    address.searchParams.delete("done");
    history.replaceState(null, "", address);
  }

  // the secret of a mailed link goes from the fragment into the form, and out of the address
  const secret = document.querySelector("[data-fragment]");
  if (secret && location.hash.length > 1) {
    secret.value = location.hash.slice(1);
    history.replaceState(null, "", location.pathname);
  }

  // filters and preferences act when changed; empty ones stay out of the address
  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (form && (form.matches("form[data-auto]") || form.matches("form.preferences"))) form.requestSubmit();
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "get") $$("input, select", form).forEach((field) => (field.disabled = !field.value));
  });
  addEventListener("pageshow", () => $$("form[method=get] :disabled").forEach((field) => (field.disabled = false)));

  document.addEventListener("htmx:configRequest", ({ detail }) => {
    if (detail.verb === "get") [...detail.formData].forEach(([name, value]) => value || detail.formData.delete(name));
  });

  // what refreshes itself waits while somebody is writing in it
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { elt, requestConfig } = event.detail;
    if (requestConfig.verb === "get" && elt.matches(".phones") && elt.contains(document.activeElement)) event.preventDefault();
  });

  // an answer that never came
  document.addEventListener("htmx:sendError", () => {
    const line = document.createElement("p");
    line.className = "notice bad";
    line.textContent = document.body.dataset.network;
    document.getElementById("notice").replaceChildren(line);
  });

  // "5 min ago" goes on counting
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
  const ago = (iso) => {
    const seconds = (new Date(iso) - Date.now()) / 1000;
    const size = Math.abs(seconds);
    if (size < 60) return relative.format(Math.round(seconds), "second");
    if (size < 3600) return relative.format(Math.trunc(seconds / 60), "minute");
    if (size < 86400) return relative.format(Math.trunc(seconds / 3600), "hour");
    return relative.format(Math.trunc(seconds / 86400), "day");
  };
  const refresh = () => $$("[data-ago]").forEach((place) => (place.textContent = ago(place.dataset.ago)));
  setInterval(refresh, 5000);

  // charts
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const numbers = new Intl.NumberFormat(language, { maximumFractionDigits: 4 });
  const palette = () => [colour("--accent"), "#c2571a", "#7a5bd0", "#3c8f3c", "#c0397a"];

  const axes = (extra) => {
    const common = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    return [
      { ...common, grid: { show: false }, ...extra },
      { ...common, size: 62, values: (_, splits) => splits.map((value) => numbers.format(value)) },
    ];
  };

  const bars = (place, given, size) => {
    const count = given.values.length;
    return new uPlot(
      {
        ...size,
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { show: false } },
        scales: { x: { time: false, range: [-0.6, count - 0.4] }, y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.08 : 1] } },
        axes: axes({
          splits: () => given.values.map((_, place) => place),
          values: (plot, splits) => {
            const step = Math.max(1, Math.ceil((count * 62) / plot.width));
            return splits.map((place) => (place % step ? "" : given.labels[place] || ""));
          },
        }),
        series: [{}, { label: given.label, fill: colour("--accent"), stroke: colour("--accent"), paths: uPlot.paths.bars({ size: [0.7, 48], radius: 0.12 }), points: { show: false } }],
        plugins: [tooltip((plot, index) => [given.labels[index], `${numbers.format(given.values[index])}`])],
      },
      [given.values.map((_, index) => index), given.values],
      place,
    );
  };

  const lines = (place, given, size) => {
    const at = (options) => new Intl.DateTimeFormat(language, { timeZone: given.zone, hourCycle: "h23", ...options });
    const hour = at({ hour: "2-digit", minute: "2-digit" });
    const day = at({ day: "numeric", month: "short" });
    const month = at({ month: "short", year: "numeric" });
    const full = at({ dateStyle: "medium", timeStyle: "medium" });
    const series = [{}];
    const bands = [];
    const data = [given.t];
    given.series.forEach((one, index) => {
      const stroke = palette()[index % 5];
      if (one.min) {
        const first = data.length;
        data.push(one.max, one.min);
        const edge = { stroke: "transparent", points: { show: false }, spanGaps: false };
        series.push({ ...edge, label: `${one.label} ↑` }, { ...edge, label: `${one.label} ↓` });
        bands.push({ series: [first, first + 1], fill: stroke + "33" });
      }
      data.push(one.values);
      series.push({ label: one.label, stroke, width: 1.5, spanGaps: false, points: { size: 4 }, ...(one.step ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}) });
    });
    return new uPlot(
      {
        ...size,
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), given.zone),
        axes: axes({
          values: (_, splits, axis, space, step) =>
            splits.map((seconds) => (step < 86400 && hour.format(seconds * 1000) !== "00:00" ? hour : step < 2419200 ? day : month).format(seconds * 1000)),
        }),
        legend: { show: false },
        cursor: { drag: { x: true, y: false } },
        series,
        bands,
        plugins: [
          tooltip((_, index) => [
            full.format(data[0][index] * 1000),
            ...series.flatMap((one, place) => (place && data[place][index] != null ? `${one.label} ${numbers.format(data[place][index])}` : [])),
          ]),
        ],
      },
      data,
      place,
    );
  };

  function tooltip(words) {
    return {
      hooks: {
        init: (plot) => {
          plot.tip = document.createElement("div");
          plot.tip.className = "tip";
          plot.tip.hidden = true;
          plot.over.append(plot.tip);
        },
        setCursor: (plot) => {
          const index = plot.cursor.idx;
          plot.tip.hidden = index == null || plot.cursor.left < 0;
          if (plot.tip.hidden) return;
          plot.tip.textContent = words(plot, index).join(" · ");
          const left = Math.min(plot.cursor.left + 12, plot.over.clientWidth - plot.tip.offsetWidth - 4);
          plot.tip.style.transform = `translate(${Math.max(0, left)}px, 4px)`;
        },
      },
    };
  }

  const draw = (place, given) => {
    const make = given.kind === "bars" ? bars : lines;
    const size = () => ({ width: Math.max(200, place.clientWidth), height: place.clientHeight });
    let plot = null;
    const again = () => {
      if (plot) plot.destroy();
      place.replaceChildren();
      plot = make(place, given, size());
    };
    again();
    let width = place.clientWidth;
    new ResizeObserver(() => {
      if (place.clientWidth === width) return;
      width = place.clientWidth;
      again();
    }).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    place.dataset.drawn = "yes";
  };

  const charts = (within) => {
    $$("[data-chart]", within).forEach((place) => {
      if (!place.dataset.drawn) draw(place, JSON.parse(place.dataset.chart));
    });
    $$("[data-chart-from]", within).forEach(async (place) => {
      if (place.dataset.drawn) return;
      place.dataset.drawn = "asked";
      const say = (words) => {
        const line = document.createElement("p");
        line.className = "hint";
        line.textContent = words;
        place.replaceChildren(line);
      };
      try {
        const answer = await fetch(place.dataset.chartFrom, { headers: { accept: "application/json" } });
        if (!answer.ok) throw new Error(String(answer.status));
        const given = await answer.json();
        if (!given.t.length) say(place.dataset.empty);
        else draw(place, given);
      } catch {
        say(document.body.dataset.network);
      }
    });
  };

  // live values: one stream a page, for the series that it shows
  const short = (value) => {
    const size = Math.abs(value);
    if (size && (size >= 1e12 || size < 1e-4)) return value.toPrecision(4);
    const digits = size >= 1e5 ? 0 : size >= 1000 ? 1 : size >= 10 ? 2 : 4;
    return value.toLocaleString(language, { maximumFractionDigits: digits });
  };
  const stream = () => {
    const state = document.querySelector("[data-live]");
    const rows = new Map($$("[data-series]").map((row) => [Number(row.dataset.series), row]));
    if (!state || !rows.size) return;
    const spoken = document.getElementById("spoken");
    const when = new Intl.DateTimeFormat(language, { timeZone: state.dataset.zone, dateStyle: "medium", timeStyle: "medium" });
    const newest = document.querySelector("[data-newest]");
    let news = 0;
    const show = (name) => {
      state.className = `live ${name}`;
      state.textContent = state.dataset[name];
    };
    const text = (value) => (value == null ? "–" : typeof value === "number" ? short(value) : typeof value === "boolean" ? state.dataset[value] : value);
    const put = ({ id, ts, value }) => {
      const row = rows.get(id);
      const time = row && row.querySelector("[data-ago]");
      const at = new Date(ts).toISOString();
      if (!row || (time && new Date(time.dataset.ago).getTime() >= ts)) return;
      row.querySelector("[data-value]").textContent = text(value);
      if (time) {
        time.dataset.ago = at;
        time.setAttribute("datetime", at);
        time.title = when.format(ts);
        time.textContent = ago(at);
      }
      row.classList.remove("fresh");
      void row.offsetWidth;
      row.classList.add("fresh");
      if (newest && ts > new Date(newest.dataset.ago)) {
        newest.dataset.ago = at;
        newest.textContent = ago(at);
        document.querySelector("[data-newest-text]").textContent = [...row.cells].slice(0, 2).map((cell) => cell.textContent.trim()).join(" · ");
      }
      news += 1;
    };
    const source = new EventSource(`${state.dataset.live}?${[...rows.keys()].map((id) => `series=${id}`).join("&")}`);
    source.onopen = () => show("on");
    source.onerror = () => show("off");
    source.onmessage = (event) => JSON.parse(event.data).forEach(put);
    // Who listens to the page hears a summary now and then, not every number.
    setInterval(() => {
      if (news) spoken.textContent = state.dataset.news.replace("{n}", numbers.format(news));
      news = 0;
    }, 15000);
    addEventListener("pagehide", () => source.close());
  };

  const start = () => {
    charts(document);
    stream();
  };
  if (document.readyState === "complete") start();
  else addEventListener("DOMContentLoaded", start);
  document.addEventListener("htmx:load", (event) => charts(event.detail.elt));

  // a secret that was made is copied with one press
  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (!copy) return;
    await navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent.trim());
    copy.textContent = copy.dataset.copied;
  });
})();

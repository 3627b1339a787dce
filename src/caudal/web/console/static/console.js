// The console's own script: menu, filters, forms, live values. No framework, nothing inline, no eval.
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
    const field = event.target;
    // A search that looks while one types has found already.
    if (!field.form || !field.form.matches("form[data-auto], form.preferences") || field.hasAttribute("hx-get")) return;
    sessionStorage.setItem("focus", field.name);
    field.form.requestSubmit();
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    // (a form without a method says "get", too)
    if (form.getAttribute("method") === "get") $$("input, select", form).forEach((field) => (field.disabled = !field.value));
  });
  // ... and who works by keyboard is still at the filter they chose
  const chosen = sessionStorage.getItem("focus");
  sessionStorage.removeItem("focus");
  if (chosen) document.querySelector(`form:is([data-auto], .preferences) [name="${CSS.escape(chosen)}"]`)?.focus({ preventScroll: true });

  // going back, browsers put in what was chosen last, which is not what the page shows
  addEventListener("pageshow", ({ persisted }) => {
    $$("form[method=get] :disabled").forEach((field) => (field.disabled = false));
    $$("form[data-auto] option, form.preferences option").forEach((one) => (one.selected = one.defaultSelected));
    $$("form[data-auto] select").forEach((one) => one.querySelector("option[selected]") || (one.selectedIndex = 0));
    if (!persisted) $$("form[data-auto] input").forEach((one) => (one.value = one.defaultValue));
  });

  document.addEventListener("htmx:configRequest", ({ detail }) => {
    if (detail.verb === "get") [...detail.formData].forEach(([name, value]) => value || detail.formData.delete(name));
  });

  // what refreshes itself waits while somebody is writing in it, or while nobody looks
  const polls = (elt) => /every/.test(elt.getAttribute("hx-trigger") || "");
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { elt, requestConfig } = event.detail;
    if (requestConfig.verb !== "get" || !polls(elt)) return;
    if (document.hidden || (elt.matches(".phones") && elt.contains(document.activeElement))) event.preventDefault();
  });

  // ... and what has not changed stays as it is: a selection, a place scrolled to, what a screen reader has said
  const last = new Map();
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { elt, xhr } = event.detail;
    if (xhr.status !== 200 || !polls(elt)) return;
    const part = elt.getAttribute("hx-select");
    const found = part ? new DOMParser().parseFromString(xhr.responseText, "text/html").querySelector(part) : null;
    const text = found ? found.outerHTML : xhr.responseText;
    const name = elt.id || elt.className;
    if (last.get(name) === text) event.detail.shouldSwap = false;
    last.set(name, text);
  });

  // one press is one deed: until the answer is there, and the page it leads to, the form's buttons rest
  const resting = (elt, yes) => [elt, ...$$("button", elt)].forEach((one) => one.matches("button") && (one.disabled = yes));
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { elt, requestConfig, target } = event.detail;
    if (requestConfig.verb === "get") {
      // A list that is being looked for has a line above it, and says so to screen readers.
      if (!polls(elt)) target.setAttribute("aria-busy", "true");
      return;
    }
    if (elt.dataset.busy) event.preventDefault();
    else {
      elt.dataset.busy = "yes";
      elt.setAttribute("aria-busy", "true");
      resting(elt, true);
    }
  });
  document.addEventListener("htmx:afterRequest", ({ detail }) => {
    const { elt, xhr, requestConfig, target } = detail;
    if (target) target.removeAttribute("aria-busy");
    if (!requestConfig || requestConfig.verb === "get" || (xhr && xhr.getResponseHeader("hx-redirect"))) return;
    delete elt.dataset.busy;
    elt.removeAttribute("aria-busy");
    resting(elt, false);
  });
  addEventListener("pageshow", ({ persisted }) => persisted && $$("[data-busy]").forEach((one) => {
    delete one.dataset.busy;
    one.removeAttribute("aria-busy");
    resting(one, false);
  }));

  // an answer that never came; and the next one that did
  const notice = document.getElementById("notice");
  const say = (words, kind) => {
    const line = document.createElement("p");
    line.className = `notice bad ${kind}`;
    line.textContent = words;
    notice.replaceChildren(line);
  };
  const gone = () => notice.querySelector(".gone") || say(document.body.dataset.network, "gone");
  const back = () => notice.querySelector(".gone")?.remove();
  ["htmx:sendError", "htmx:timeout"].forEach((name) => document.addEventListener(name, gone));
  document.addEventListener("htmx:afterOnLoad", ({ detail }) => detail.xhr.status < 500 && back());
  const signIn = () => location.assign(`/console/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);

  const numbers = new Intl.NumberFormat(language, { maximumFractionDigits: 4 });

  // "5 min ago" goes on counting
  // (in the server's own words: `locale.ago`)
  const words = JSON.parse(document.body.dataset.agoWords || "{}");
  const ago = (iso) => {
    const seconds = (Date.now() - new Date(iso)) / 1000;
    if (seconds >= -5 && seconds < 5) return words.now;
    const size = Math.abs(seconds);
    const [unit, length] = size >= 86400 ? ["days", 86400] : size >= 3600 ? ["hours", 3600] : size >= 60 ? ["minutes", 60] : ["seconds", 1];
    const span = words[unit].replace("{n}", numbers.format(Math.floor(size / length)));
    return (seconds < 0 ? words.ahead : words.ago).replace("{span}", span);
  };
  const refresh = () => $$("[data-ago]").forEach((place) => (place.textContent = ago(place.dataset.ago)));
  setInterval(refresh, 5000);

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
    const put = ({ id, ts, value, quality }) => {
      const row = rows.get(id);
      const time = row && row.querySelector("[data-ago]");
      const at = new Date(ts).toISOString();
      if (!row || (time && new Date(time.dataset.ago).getTime() >= ts)) return;
      const reading = row.querySelector("[data-value]");
      reading.textContent = text(value);
      reading.classList.toggle("doubtful", quality > 0);
      const worth = row.querySelector("[data-quality]");
      worth.hidden = !quality;
      worth.textContent = quality ? state.getAttribute(`data-quality-${quality}`) : "";
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
    const from = `${state.dataset.live}?${[...rows.keys()].map((id) => `series=${id}`).join("&")}`;
    let source = null;
    let wait = 1000;
    // The browser tries again by itself when a line breaks, and gives up when it is refused: then we ask why.
    const open = () => {
      source = new EventSource(from);
      source.onopen = () => {
        wait = 1000;
        show("on");
      };
      source.onmessage = (event) => JSON.parse(event.data).forEach(put);
      source.onerror = async () => {
        show("off");
        if (source.readyState !== EventSource.CLOSED) return;
        const answer = await fetch("/api/me", { headers: { accept: "application/json" } }).catch(() => null);
        if (answer && answer.status === 401) {
          show("ended");
          const link = document.createElement("a");
          link.href = "#";
          link.textContent = state.dataset.enter;
          link.addEventListener("click", (event) => {
            event.preventDefault();
            signIn();
          });
          state.append(" ", link);
          return;
        }
        setTimeout(open, wait);
        wait = Math.min(wait * 2, 30000);
      };
    };
    open();
    // Who listens to the page hears a summary now and then, not every number.
    setInterval(() => {
      if (news) spoken.textContent = state.dataset.news.replace("{n}", numbers.format(news));
      news = 0;
    }, 15000);
    addEventListener("pagehide", () => source.close());
    addEventListener("pageshow", ({ persisted }) => persisted && open());
  };

  if (document.readyState === "complete") stream();
  else addEventListener("DOMContentLoaded", stream);

  // a thread is fetched again when there is news; a browser has few lines, so a page that nobody looks at keeps none
  const listen = () => {
    const place = document.querySelector("[data-news]");
    if (!place) return;
    let source = null;
    const turn = (on) => {
      if (on === Boolean(source)) return;
      if (!on) {
        source.close();
        source = null;
        return;
      }
      const mine = (source = new EventSource(place.dataset.news));
      mine.onmessage = () => document.body.dispatchEvent(new Event("news"));
      mine.onerror = () => {
        // Refused: what refreshes itself says why; we try again later.
        if (mine.readyState !== EventSource.CLOSED || mine !== source) return;
        source = null;
        setTimeout(() => turn(!document.hidden), 10000);
      };
    };
    turn(!document.hidden);
    document.addEventListener("visibilitychange", () => turn(!document.hidden));
    addEventListener("pagehide", () => turn(false));
    addEventListener("pageshow", ({ persisted }) => persisted && turn(true));
  };
  if (document.readyState === "complete") listen();
  else addEventListener("DOMContentLoaded", listen);

  // a file goes up when it is chosen; the form that follows names it
  document.addEventListener("change", (event) => {
    const place = event.target;
    if (!place.matches("input[data-upload]")) return;
    const { form } = place;
    const line = place.parentElement.querySelector("[role=status]");
    const number = form.querySelector("[name=file]");
    const send = form.querySelector("button[type=submit]");
    number.value = "";
    line.textContent = "";
    const [file] = place.files;
    if (!file) return;
    const body = new FormData();
    body.append("conversation_id", place.dataset.upload);
    body.append("file", file);
    const request = new XMLHttpRequest();
    const end = (words) => {
      send.disabled = false;
      line.textContent = words;
    };
    const refused = (why) => {
      place.value = "";
      end(place.dataset.failed.replace("{why}", why));
    };
    send.disabled = true;
    request.open("POST", "/v1/files");
    Object.entries(JSON.parse(document.body.getAttribute("hx-headers"))).forEach(([name, value]) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded, total }) => (line.textContent = place.dataset.sending.replace("{done}", `${Math.floor((100 * loaded) / total)}%`));
    request.onerror = () => refused(document.body.dataset.network);
    request.onload = () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {}
      if (request.status !== 201) return refused(answer.detail || String(request.status));
      number.value = answer.file_id;
      end(file.name);
    };
    request.send(body);
  });

  // a secret that was made is copied with one press
  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (!copy) return;
    await navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent.trim());
    copy.textContent = copy.dataset.copied;
  });
})();

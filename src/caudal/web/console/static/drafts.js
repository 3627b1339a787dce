// What somebody typed into a form outlives the page: a session that ends, a reload, a server that is gone.
// Kept in this tab alone, for the same person in the same account, until it is sent or discarded.
"use strict";
(() => {
  const { who, restored, discard } = document.body.dataset;
  const PREFIX = "draft:";
  const keys = () => Object.keys(sessionStorage).filter((key) => key.startsWith(PREFIX));
  const forget = (key) => sessionStorage.removeItem(key);

  document.addEventListener("submit", ({ target }) => {
    if (target.matches("form[action='/console/sign-out']")) keys().forEach(forget);
  });
  // Signing in, nobody is anybody yet.
  if (!who) return;
  const own = `${PREFIX}${who}:`;
  keys().forEach((key) => key.startsWith(own) || forget(key));

  const FORMS = "main form[hx-post]";
  const key = (form) => {
    const address = form.getAttribute("hx-post");
    const alike = [...document.querySelectorAll(FORMS)].filter((one) => one.getAttribute("hx-post") === address);
    return `${own}${location.pathname}${location.search}:${address}:${alike.indexOf(form)}`;
  };
  const kept = (field) => field.name && !field.matches("button, [type=hidden], [type=password], [type=file]");
  // (buttons do not count: a form that something was put back into has one more)
  const fields = (form) => [...form.elements].filter(kept);
  const ticks = (field) => field.matches("[type=checkbox], [type=radio]");
  const changed = (field) => {
    if (ticks(field)) return field.checked !== field.defaultChecked;
    if (field.matches("select")) return field.value !== (field.querySelector("option[selected]") || field.options[0])?.value;
    return field.value !== field.defaultValue;
  };

  document.addEventListener("input", ({ target }) => {
    const { form } = target;
    // The sandbox's phones draw themselves anew all the time.
    if (!form || !form.matches(FORMS) || form.closest(".phones")) return;
    const values = fields(form).flatMap((field, place) =>
      changed(field) ? [[place, field.name, ticks(field) ? field.checked : field.value]] : [],
    );
    if (!values.length) return forget(key(form));
    try {
      sessionStorage.setItem(key(form), JSON.stringify(values));
    } catch {
      // No room: then it is on the page alone, as it would be without us.
    }
  });

  document.addEventListener("htmx:afterRequest", ({ detail: { elt, requestConfig, xhr } }) => {
    const form = elt.closest(FORMS);
    if (!form || requestConfig?.verb !== "post" || xhr?.status !== 200) return;
    const next = xhr.getResponseHeader("hx-redirect");
    if (next ? !next.startsWith("/console/sign-in") : elt === form) forget(key(form));
  });

  document.querySelectorAll(FORMS).forEach((form) => {
    const name = key(form);
    const values = JSON.parse(sessionStorage.getItem(name) || "null");
    if (!values) return;
    const own = fields(form);
    values.forEach(([place, field, value]) => {
      const found = own[place];
      if (!found || found.name !== field) return;
      if (ticks(found)) found.checked = value;
      else found.value = value;
    });
    const line = document.createElement("p");
    line.className = "hint wide";
    line.setAttribute("role", "status");
    line.textContent = restored;
    const press = document.createElement("button");
    press.type = "button";
    press.className = "plain";
    press.textContent = discard;
    press.addEventListener("click", () => {
      forget(name);
      form.reset();
      line.remove();
      form.querySelector("input:not([type=hidden]), textarea, select")?.focus();
    });
    line.append(" ", press);
    form.prepend(line);
    const folded = form.closest("details");
    if (folded) folded.open = true;
  });
})();


"use strict";
(() => {
  const status = document.getElementById("status");
  document.documentElement.classList.add("works");

  const say = (text, failed) => {
    status.classList.toggle("failed", Boolean(failed));
    status.textContent = text;
  };

  // Updates `old` to match `fresh`. Equal nodes stay, which preserves focus and selection.
  const update = (old, fresh) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    let next = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      // Rows have IDs: new rows are inserted, rows that are gone are removed, the others stay.
      const isGone = (id) => !fresh.querySelector("#" + CSS.escape(id));
      while (next && next.id && wanted.id && next.id !== wanted.id && isGone(next.id)) {
        const gone = next;
        next = next.nextSibling;
        gone.remove();
      }
      if (next && next.nodeName === wanted.nodeName && (next.id || "") === (wanted.id || "")) {
        update(next, wanted);
        next = next.nextSibling;
      } else {
        const known = wanted.id && [...old.children].find((child) => child.id === wanted.id);
        if (known) update(known, wanted);
        old.insertBefore(known || document.importNode(wanted, true), next);
      }
    }
    while (next) {
      const gone = next;
      next = next.nextSibling;
      gone.remove();
    }
  };

  let lost = false;
  const refresh = async () => {
    try {
      const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const found = fresh.getElementById(old.id);
        if (found) update(old, found);
      }
      if (lost) say("The emulator is responding again.");
      lost = false;
    } catch {
      if (!lost) say("The emulator does not respond. The data shown may be outdated.", true);
      lost = true;
    }
  };

  // One request at a time, and only while the page is visible.
  const watch = async () => {
    if (!document.hidden) await refresh();
    setTimeout(watch, 1000);
  };

  const send = async (element, method, body) => {
    try {
      const answer = await fetch("/_emulator" + element.dataset.path, {
        method,
        headers: body === undefined ? {} : { "content-type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      const result = await answer.json();
      const done = element.dataset.done;
      const isWrong = (field) =>
        field.name && field.name === result.field && !field.matches(":disabled");
      for (const field of element.elements || []) {
        if (isWrong(field)) field.setAttribute("aria-invalid", "true");
        else field.removeAttribute("aria-invalid");
      }
      if (answer.ok) say(done.replace(/\{(\w+)\}/g, (_, name) => result[name] ?? "nowhere"));
      else say("Not done: " + result.error, true);
      await refresh();
    } catch {
      say("Not done: the emulator does not respond.", true);
    }
  };

  const copy = async (button) => {
    try {
      const answer = await fetch(button.dataset.copy);
      if (!answer.ok) throw new Error(answer.statusText);
      await navigator.clipboard.writeText(await answer.text());
      say(button.dataset.done);
    } catch {
      say(`Not copied. Open ${button.dataset.copy} instead.`, true);
    }
  };

  document.addEventListener("click", (event) => {
    const copying = event.target.closest("button[data-copy]");
    if (copying) copy(copying);
    const button = event.target.closest("button[data-path]");
    if (!button) return;
    const body = JSON.parse(button.dataset.body);
    send(button, button.dataset.method, body === null ? undefined : body);
  });

  const read = (field) => {
    const value = field.value.trim();
    switch (field.dataset.type) {
      case "number": return value === "" ? undefined : Number(value);
      case "nullable": return value === "" ? null : value;
      case "json": return JSON.parse(value);
      case "headers":
        return value === "" ? undefined : value.split("\n").map((line) => {
          const colon = line.indexOf(":");
          return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
        });
      default:
        if (field.type === "checkbox") return field.checked || undefined;
        return value === "" ? undefined : value;
    }
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.dataset.path) return;
    event.preventDefault();
    const body = {};
    for (const field of form.elements) {
      const name = "namedByButton" in field.dataset ? event.submitter.value : field.name;
      if (!name || field.localName === "button" || field.matches(":disabled")) continue;
      const value = read(field);
      if (value !== undefined) body[name] = value;
    }
    send(form, "POST", body);
  });

  // Each kind of fault has its own parameters.
  const choose = (chooser) => {
    for (const fields of chooser.form.querySelectorAll("[data-of]")) {
      fields.hidden = fields.disabled = fields.dataset.of !== chooser.value;
    }
  };
  for (const chooser of document.querySelectorAll("[data-chooses]")) {
    chooser.addEventListener("change", () => choose(chooser));
    choose(chooser);
  }

  setTimeout(watch, 1000);
})();

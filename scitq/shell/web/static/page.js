// What the page does beyond what the server draws: it stays current, and it has keys. Without this file all still works.
"use strict";
(() => {
  const body = document.body;
  document.documentElement.classList.add("js");

  // --- staying current: what changed on the server is fetched as a page, and only what differs is put in place ------------

  const LEAST_MS = 500;
  let source = null, timer = null, last = 0, busy = false, again = false;

  // By attribute: a form's own `id` is taken by fields of that name.
  const keyOf = (node) => node.nodeType === 1 ? node.getAttribute("id") || node.dataset.key || null : null;

  // Make `old` what `fresh` is, keeping what somebody types, has chosen, has opened, or points at.
  function become(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) { old.replaceWith(fresh); return; }
    if (old.nodeType !== 1) { if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue; return; }
    if (old.hasAttribute("data-keep")) return;
    const isField = old.matches("input, select, textarea");
    if (isField && (old === document.activeElement || isTouched(old))) return;
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS") && name !== "aria-selected") old.removeAttribute(name);
    for (const { name, value } of [...fresh.attributes]) {
      if (old.nodeName === "DETAILS" && name === "open") continue;
      if (name === "class") { const at = old.classList.contains("at"); old.className = value; old.classList.toggle("at", at); continue; }
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    if (isField) { if ("value" in fresh && old.type !== "checkbox") old.value = fresh.value; if (old.nodeName === "INPUT") return; }
    children(old, fresh);
  }

  function isTouched(field) {
    if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
    if (field.nodeName === "SELECT") return [...field.options].some((one) => one.selected !== one.defaultSelected) && field.dataset.touched === "1";
    return field.value !== field.defaultValue;
  }

  function children(old, fresh) {
    const known = new Map();
    for (const node of old.childNodes) { const key = keyOf(node); if (key) known.set(key, node); }
    let at = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const key = keyOf(wanted);
      const same = key ? known.get(key) : null;
      if (same) {
        known.delete(key);
        if (same !== at) old.insertBefore(same, at); else at = at.nextSibling;
        become(same, wanted);
      } else if (at && !keyOf(at) && !key && at.nodeName === wanted.nodeName) {
        const next = at.nextSibling;
        become(at, wanted);
        at = next;
      } else {
        old.insertBefore(wanted, at);
      }
    }
    while (at) { const next = at.nextSibling; at.remove(); at = next; }
  }

  document.addEventListener("change", (event) => { if (event.target.nodeName === "SELECT") event.target.dataset.touched = "1"; });

  async function refresh() {
    clearTimeout(timer);
    timer = null;
    if (busy) { again = true; return; }
    busy = true;
    last = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { "x-live": "1" }, credentials: "same-origin" });
      if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) {
          const its = fresh.getElementById(part.getAttribute("id"));
          if (its) become(part, document.adoptNode(its));
        }
        body.dataset.version = fresh.body.dataset.version;
        mark();
        document.dispatchEvent(new CustomEvent("refreshed"));
      }
    } catch { /* the server is gone; the stream says so */ }
    busy = false;
    if (again) { again = false; soon(); }
  }

  function soon() {
    if (timer === null) timer = setTimeout(refresh, Math.max(0, last + LEAST_MS - Date.now()));
  }

  function isOlder(version) {
    let mine = {};
    try { mine = JSON.parse(body.dataset.version || "{}"); } catch { return true; }
    return [...body.dataset.topics.split(","), "driver"].some((topic) => topic && mine[topic] !== version[topic]);
  }

  function connect() {
    if (source || document.hidden || !body.dataset.topics) return;
    source = new EventSource(body.dataset.stream || "/live?topics=" + encodeURIComponent(body.dataset.topics + ",driver"));
    const pulse = () => document.getElementById("pulse");
    source.onopen = () => { if (pulse()) pulse().hidden = true; };
    source.onerror = () => {
      if (pulse()) pulse().hidden = false;
      if (source && source.readyState === EventSource.CLOSED) { source = null; setTimeout(connect, 5000); }
    };
    source.addEventListener("now", (event) => { if (isOlder(JSON.parse(event.data))) soon(); });
    source.addEventListener("change", soon);
    source.addEventListener("message", (event) => document.dispatchEvent(new CustomEvent("live", { detail: JSON.parse(event.data) })));
  }

  function disconnect() { if (source) { source.close(); source = null; } }

  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", connect);
  // What comes is for the scripts after this one as well, so not before they are there: nothing comes twice.
  document.addEventListener("DOMContentLoaded", connect);

  // --- rows: one is marked; keys move the mark, open its row, choose it --------------------------------------------------

  const rows = () => [...document.querySelectorAll("[data-row]")];
  let marked = null;

  function mark(row = null, scroll = false) {
    if (row) marked = row.dataset.row;
    for (const one of rows()) one.classList.toggle("at", marked !== null && one.dataset.row === marked);
    if (row && scroll) row.scrollIntoView({ block: "nearest" });
  }

  function move(by) {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.dataset.row === marked);
    const row = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
    mark(row, true);
    const link = row.querySelector("a[data-open]");
    if (link) link.focus({ preventScroll: true });
  }

  const markedRow = () => rows().find((row) => row.dataset.row === marked);

  document.addEventListener("focusin", (event) => { const row = event.target.closest("[data-row]"); if (row) mark(row); });

  // --- choosing rows: one box chooses all of the page, and the number chosen is said --------------------------------------

  function told() {
    const boxes = [...document.querySelectorAll("input[data-pick]")];
    const count = boxes.filter((box) => box.checked).length;
    for (const place of document.querySelectorAll("[data-picked]")) place.textContent = count ? `${count} chosen` : "";
    const all = document.querySelector("input[data-pick-all]");
    if (all) { all.checked = count > 0 && count === boxes.length; all.indeterminate = count > 0 && count < boxes.length; }
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches("input[data-pick-all]"))
      for (const box of document.querySelectorAll("input[data-pick]")) box.checked = event.target.checked;
    if (event.target.matches("input[data-pick], input[data-pick-all]")) told();
    if (event.target.matches("select[data-submit]")) event.target.form.requestSubmit();
  });
  document.addEventListener("refreshed", told);

  // A search that has found nothing yet goes on by itself.
  const on = document.querySelector("a[data-search-on]");
  if (on) location.replace(on.href);

  // --- keys ------------------------------------------------------------------------------------------------------------------

  let before = "";
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const field = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
    if (field) { if (event.key === "Escape") field.blur(); return; }
    const dialog = document.getElementById("keys");
    if (dialog && dialog.open) return;
    const key = event.key, was = before;
    before = "";
    if (was === "g") {
      const link = document.querySelector(`a[data-go="${CSS.escape(key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    if (key === "g") { before = "g"; setTimeout(() => { before = ""; }, 1500); return; }
    if (key === "?") dialog.showModal();
    else if (key === "/") { const place = document.querySelector("[data-filter]"); if (!place) return; place.focus(); place.select?.(); }
    else if (key === "j") move(1);
    else if (key === "k") move(-1);
    else if (key === "x") { const box = markedRow()?.querySelector("input[data-pick]"); if (!box) return; box.checked = !box.checked; told(); }
    else if (key === "Enter" && event.target === body) { const link = markedRow()?.querySelector("a[data-open]"); if (!link) return; link.click(); }
    else return;
    event.preventDefault();
  });
})();

// What a task writes, put at the end of its panes as it comes. Text is set as text, never as markup.
"use strict";
(() => {
  const panes = document.getElementById("panes");
  if (!panes) return;
  const body = document.body;
  const MOST = 2_000_000; // characters of a pane that are kept; what was before is fetched again when it is asked for

  const paneOf = (word) => panes.querySelector(`[data-stream="${CSS.escape(word)}"]`);
  const size = (count) => {
    for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
      if (count < 999.5 || unit === "TB") return unit === "B" ? `${count} B` : `${count < 9.95 ? count.toFixed(1) : count.toFixed(0)} ${unit}`;
      count /= 1000;
    }
  };

  function made(parts, start) {
    const chunk = document.createElement("span");
    chunk.dataset.start = start;
    for (const [look, text] of parts) {
      if (!look) { chunk.append(text); continue; }
      const part = document.createElement("span");
      part.className = look;
      part.textContent = text;
      chunk.append(part);
    }
    return chunk;
  }

  const isAtEnd = (pre) => pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 6;

  function follows(pane, yes) { pane.querySelector("[data-follow]").setAttribute("aria-pressed", yes); }
  const isFollowing = (pane) => pane.querySelector("[data-follow]").getAttribute("aria-pressed") === "true";

  function toEnd(pane) { const pre = pane.querySelector("pre"); pre.scrollTop = pre.scrollHeight; }

  function tell(pane) {
    const start = Number(pane.dataset.start), place = pane.querySelector(".earlier");
    let link = place.querySelector("[data-earlier]");
    if (start > 0) {
      if (!link) { link = document.createElement("a"); link.dataset.earlier = ""; place.prepend(link); }
      link.href = `/task/${panes.dataset.task}?execution=${panes.dataset.execution}&${pane.dataset.stream}_before=${start}#output`;
      link.textContent = `Earlier (${size(start)} before)`;
    } else if (link) link.remove();
    const pre = pane.querySelector("pre");
    pre.classList.toggle("nothing", !pre.textContent);
  }

  function empty(pane, at) {
    pane.querySelector("pre").replaceChildren();
    pane.dataset.start = pane.dataset.end = at;
  }

  function trim(pre, pane) {
    let length = pre.textContent.length;
    while (length > MOST && pre.childElementCount > 1) {
      length -= pre.firstElementChild.textContent.length;
      pre.firstElementChild.remove();
      pane.dataset.start = pre.firstElementChild.dataset.start;
    }
  }

  document.addEventListener("live", (event) => {
    const message = event.detail;
    if (message.execution) {
      panes.dataset.execution = message.execution;
      for (const pane of panes.querySelectorAll(".pane")) { empty(pane, 0); pane.querySelector("[data-size]").textContent = ""; follows(pane, true); tell(pane); }
    } else if (message.stream) {
      const pane = paneOf(message.stream), pre = pane.querySelector("pre");
      if (message.end <= Number(pane.dataset.end)) return; // after a broken line it came twice
      if (message.start !== Number(pane.dataset.end)) empty(pane, message.start);
      pre.append(made(message.parts, message.start));
      pane.dataset.end = message.end;
      pane.querySelector("[data-size]").textContent = size(message.size);
      trim(pre, pane);
      tell(pane);
      if (isFollowing(pane)) toEnd(pane);
    }
    const [out, err] = ["stdout", "stderr"].map((word) => paneOf(word).dataset.end);
    body.dataset.stream = `/task/${panes.dataset.task}/live?execution=${panes.dataset.execution}&stdout=${out}&stderr=${err}`;
  });

  for (const pane of panes.querySelectorAll(".pane")) {
    const pre = pane.querySelector("pre");
    tell(pane);
    toEnd(pane);
    // Who scrolls up wants to read: it stands still then. Back at the end, it goes on.
    pre.addEventListener("scroll", () => follows(pane, isAtEnd(pre)), { passive: true });
    pane.querySelector("[data-follow]").addEventListener("click", () => { follows(pane, true); toEnd(pane); });
  }

  panes.addEventListener("click", async (event) => {
    const link = event.target.closest("[data-earlier]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const pane = link.closest(".pane"), pre = pane.querySelector("pre"), start = pane.dataset.start;
    const query = new URLSearchParams({ execution: panes.dataset.execution, stream: pane.dataset.stream, before: start });
    const answer = await fetch(`/task/${panes.dataset.task}/earlier?${query}`, { credentials: "same-origin" });
    if (!answer.ok || pane.dataset.start !== start) return;
    const found = await answer.json(), known = pre.scrollHeight;
    follows(pane, false);
    pre.prepend(made(found.parts, found.start));
    pane.dataset.start = found.start;
    tell(pane);
    // What came is looked at from its end, with the first lines of what was known below it.
    pre.scrollTop = Math.max(0, pre.scrollHeight - known - pre.clientHeight + 60);
    pre.focus({ preventScroll: true });
  });
})();

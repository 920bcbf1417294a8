// What a page does beyond HTML and htmx. Without it every page works, too.
"use strict";

// A copy button names by data-copy the element whose text it copies.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const from = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(from.textContent);
    button.textContent = button.dataset.done;
    setTimeout(() => { button.textContent = button.dataset.label; }, 2000);
  } catch { // the page is not on https: the reader copies the selection
    getSelection().selectAllChildren(from);
  }
});

// A checkbox with data-all ticks the other ones of its form.
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-all]")) return;
  for (const box of event.target.form.querySelectorAll("input[type=checkbox][name]")) box.checked = event.target.checked;
});

// data-js marks what is of use only with this file.
const reveal = () => { for (const one of document.querySelectorAll("[data-js]")) one.hidden = false; };
document.addEventListener("DOMContentLoaded", reveal);
document.addEventListener("htmx:afterSettle", reveal);

// A part that is live waits while somebody uses it, or the parts that it brings along: focus
// and selection would be lost.
document.addEventListener("htmx:beforeRequest", (event) => {
  const live = event.target;
  if (live.id !== "live") return;
  const also = (live.getAttribute("hx-select-oob") ?? "").split(",").filter(Boolean).map((one) => document.querySelector(one));
  const within = (node) => node && [live, ...also].some((part) => part?.contains(node));
  const selection = getSelection();
  const selected = selection && !selection.isCollapsed && within(selection.anchorNode);
  if (document.hidden || within(document.activeElement) || selected) event.preventDefault();
});

// The answer to a form stands above it: the keyboard continues there.
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id === "answer") document.getElementById("answer").focus({ preventScroll: true });
});

// A page that cannot be refreshed says since when. Both times are the server's.
const refreshed = (date) => {
  const note = document.getElementById("stale");
  if (!note) return;
  note.hidden = true;
  if (date) note.dataset.since = new Date(date).toISOString().slice(11, 19) + " UTC";
};
const unrefreshed = () => {
  const note = document.getElementById("stale");
  if (!note || !note.hidden) return;
  note.hidden = false;
  note.textContent = note.dataset.text.replace("%s", note.dataset.since);
};
for (const name of ["htmx:sendError", "htmx:timeout"]) document.addEventListener(name, (event) => {
  if (event.detail.requestConfig.verb === "get") unrefreshed();
});

// An answer without the part that was asked for is another page: of an ended session, or
// an error. A live part then stays as it is; a form shows that page.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr, target, requestConfig } = event.detail;
  const get = requestConfig.verb === "get";
  if (xhr.status < 400 || xhr.responseText.includes(`id="${target.id}"`)) {
    if (get) refreshed(xhr.getResponseHeader("Date"));
    return;
  }
  event.detail.shouldSwap = false;
  if (xhr.status === 401 || !get) location.reload();
  else unrefreshed();
});

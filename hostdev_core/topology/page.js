"use strict";
{
  const tree = document.getElementById("tree");
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const details = document.getElementById("details");
  const items = [...tree.querySelectorAll("[role=treeitem]")];
  const buttons = [...document.querySelectorAll(".filters button")];
  // What a search looks into: the row with the details, of a device alone.
  const texts = new Map(items.map((item) => [item, own(item).toLowerCase()]));
  let current = null;

  function own(item) {
    const parts = [item.querySelector(":scope > .row"), item.querySelector(":scope > dl")];
    return parts.map((part) => [...part.children].map((each) => each.textContent).join(" ")).join(" ");
  }

  function upper(item) {
    return item.parentElement.closest("[role=treeitem]");
  }

  function isShown(item) {
    return item.getClientRects().length > 0;
  }

  function expand(item, open) {
    if (item.hasAttribute("aria-expanded")) item.setAttribute("aria-expanded", String(open));
  }

  // The one item that the Tab key reaches.
  function point(item) {
    if (current) {
      current.tabIndex = -1;
      current.setAttribute("aria-selected", "false");
    }
    current = item;
    if (item) item.tabIndex = 0;
  }

  function choose(item) {
    if (!item) return;
    for (let above = upper(item); above; above = upper(above)) expand(above, true);
    point(item);
    item.setAttribute("aria-selected", "true");
    details.querySelector("h2").textContent = item.querySelector(".address").textContent;
    details.querySelector("dl").replaceChildren(...item.querySelector(":scope > dl").cloneNode(true).childNodes);
    details.hidden = false;
    item.focus({ preventScroll: true });
    keepInView(item.querySelector(".row"));
  }

  // Not behind the head of the page, nor behind the details where these lie over the tree.
  function keepInView(row) {
    const place = row.getBoundingClientRect();
    const top = document.querySelector("header").getBoundingClientRect().bottom + 4;
    const lies = getComputedStyle(details).position === "fixed" && !details.hidden;
    const bottom = (lies ? details.getBoundingClientRect().top : innerHeight) - 4;
    if (place.top < top) scrollBy(0, place.top - top);
    else if (place.bottom > bottom) scrollBy(0, place.bottom - bottom);
  }

  function move(item, step) {
    const shown = items.filter(isShown);
    choose(shown[shown.indexOf(item) + step]);
  }

  const keys = {
    ArrowDown: (item) => move(item, 1),
    ArrowUp: (item) => move(item, -1),
    Home: () => choose(items.find(isShown)),
    End: () => choose(items.filter(isShown).at(-1)),
    ArrowRight: (item) => (item.getAttribute("aria-expanded") === "false" ? expand(item, true) : choose(firstBelow(item))),
    ArrowLeft: (item) => (item.getAttribute("aria-expanded") === "true" ? expand(item, false) : choose(upper(item))),
    Enter: (item) => choose(item),
    " ": (item) => choose(item),
    Escape: () => close(),
  };

  function firstBelow(item) {
    return [...item.querySelectorAll("[role=treeitem]")].find(isShown);
  }

  function close() {
    details.hidden = true;
    if (current) current.focus();
  }

  function pressed(kind) {
    const on = buttons.filter((each) => each.getAttribute("aria-pressed") === "true" && kind in each.dataset);
    return on.map((each) => each.dataset[kind]);
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const codes = pressed("code");
    const domains = pressed("domain");
    const asked = words.length + codes.length + domains.length > 0;
    const takes = (item) =>
      words.every((word) => texts.get(item).includes(word)) &&
      (!codes.length || codes.includes(item.dataset.code)) &&
      (!domains.length || domains.includes(item.dataset.domain));
    const taken = new Set(items.filter(takes));
    const kept = new Set(taken);
    for (const item of taken) {
      for (let above = upper(item); above; above = upper(above)) {
        kept.add(above);
        if (asked) expand(above, true);
      }
    }
    for (const item of items) item.hidden = !kept.has(item);
    const devices = [...taken].filter((item) => item.dataset.code).length;
    found.textContent = asked ? `${devices} found` : "";
    if (!current || !isShown(current)) point(items.find(isShown) ?? null);
  }

  function showAsked() {
    choose(items.find((item) => item.id === decodeURIComponent(location.hash.slice(1))));
  }

  tree.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    const item = row.parentElement;
    if (event.target.matches(".twist.on")) expand(item, item.getAttribute("aria-expanded") === "false");
    else choose(item);
  });
  tree.addEventListener("keydown", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (!item || event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key](item);
  });
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") choose(items.find(isShown));
    else if (event.key === "Escape") {
      search.value = "";
      filter();
    } else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target === search) return;
    event.preventDefault();
    search.focus();
  });
  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      filter();
    });
  }
  const fold = document.getElementById("fold");
  fold.addEventListener("click", () => {
    const open = fold.textContent !== "Fold all";
    for (const item of items) expand(item, open);
    fold.textContent = open ? "Fold all" : "Unfold all";
    if (current && !isShown(current)) point(items.find(isShown) ?? null);
  });
  document.getElementById("close").addEventListener("click", close);
  addEventListener("hashchange", showAsked);
  const head = new ResizeObserver(([entry]) =>
    document.documentElement.style.setProperty("--head", `${entry.target.offsetHeight}px`),
  );
  head.observe(document.querySelector("header"));

  for (const each of document.querySelectorAll(".tools")) each.hidden = false;
  point(items[0] ?? null);
  showAsked();
}

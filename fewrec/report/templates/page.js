// Sorting and filtering of a page that is complete without it: it only hides, shows and reorders what is there.
"use strict";
(function () {
  const board = document.getElementById("board");
  const root = document.documentElement;
  root.classList.add("js");
  document.querySelectorAll(".scroll").forEach((box) =>
    box.addEventListener("scroll", () => markMore(box), { passive: true }));
  document.querySelectorAll("details").forEach((one) => one.addEventListener("toggle", keepScrollable));
  keepScrollable();
  if (!board) return;

  const controls = document.getElementById("controls");
  const chooser = document.getElementById("chooser");
  const selects = [...(chooser || controls).querySelectorAll("select")];
  const text = document.getElementById("filter");
  const trivial = document.getElementById("trivial");
  const count = document.getElementById("count");
  const heads = [...board.tHead.rows[0].cells].filter((head) => head.querySelector("button"));
  const groups = [...board.tBodies].map((body) => ({
    body,
    rows: [...body.rows].filter((row) => row.classList.contains("row")).map((row, place) => ({
      row, place, text: row.textContent.toLowerCase(), trivial: row.classList.contains("trivial"),
    })),
  }));
  const figures = [...document.querySelectorAll("figure.card")];
  const fields = ["dataset", "protocol", "state", "n", "k", "q"];
  const total = groups.reduce((sum, group) => sum + group.rows.length, 0);

  controls.hidden = false;
  selects.forEach((select) => select.addEventListener("change", show));
  text.addEventListener("input", show);
  trivial.addEventListener("change", show);
  if (chooser) {
    chooser.hidden = false;
    document.getElementById("all").addEventListener("click", () => {
      selects.forEach((select) => { select.value = "*"; });
      show();
    });
  }
  heads.forEach((head) => head.querySelector("button").addEventListener("click", () => sortBy(head)));
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  window.addEventListener("resize", show);
  show();

  function chosen(body) {
    return selects.every((select) => select.value === "*" || select.value === "=" + body.dataset[select.dataset.field]);
  }

  function show() {
    const wanted = text.value.trim().toLowerCase();
    let rows = 0, tasks = 0;
    const open = groups.filter((group) => {
      const mine = chosen(group.body);
      let some = 0;
      group.rows.forEach((one) => {
        one.row.hidden = !(mine && one.text.includes(wanted) && (trivial.checked || !one.trivial));
        some += !one.row.hidden;
      });
      group.body.hidden = !some;
      rows += some;
      tasks += some > 0;
      return mine;
    });
    figures.forEach((figure) => {
      figure.hidden = !open.some((group) =>
        fields.every((field) => !(field in figure.dataset) || figure.dataset[field] === group.body.dataset[field]));
    });
    document.querySelectorAll("section.charts").forEach((section) => {
      section.querySelector(".none").hidden = [...section.querySelectorAll("figure")].some((figure) => !figure.hidden);
    });
    const sorted = heads.find((head) => head.getAttribute("aria-sort") !== "none");
    count.textContent = rows + " of " + total + " rows shown, " + tasks + " of " + groups.length +
      (groups.length === 1 ? " task" : " tasks") +
      (sorted ? ", sorted by " + sorted.textContent.trim() + ", " + sorted.getAttribute("aria-sort") : "");
    board.parentNode.classList.toggle("tall", rows > 60);
    keepScrollable();
    document.getElementById("sideways").hidden = board.parentNode.scrollWidth <= board.parentNode.clientWidth + 1;
  }

  function sortBy(head) {
    const old = head.getAttribute("aria-sort");
    const first = head.querySelector("button").dataset.first;
    const order = old === "none" ? first : old === "ascending" ? "descending" : "ascending";
    heads.forEach((one) => one.setAttribute("aria-sort", one === head ? order : "none"));
    const place = head.cellIndex, sign = order === "ascending" ? 1 : -1;
    const numeric = head.classList.contains("number");
    groups.forEach((group) => {
      const keyed = group.rows.map((one) => {
        const cell = one.row.cells[place];
        const said = cell && cell.dataset.v !== undefined ? cell.dataset.v : "";
        return { one, missing: said === "", key: numeric ? Number(said) : said.toLowerCase() };
      });
      keyed.sort((a, b) => (a.missing - b.missing) ||
        (a.missing ? 0 : sign * (numeric ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true }))) ||
        a.one.place - b.one.place);
      group.body.append(...keyed.map((each) => each.one.row));
    });
    show();
  }

  // The edge fades where more columns, or more of a plot, lie to the right.
  function markMore(box) {
    box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  }

  // What overflows can be scrolled with the keyboard; what doesn't is no stop on the way.
  function keepScrollable() {
    document.querySelectorAll(".scroll").forEach((box) => {
      if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
      markMore(box);
    });
  }
})();

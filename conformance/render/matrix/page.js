"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const { passed, cells } of data.columns)
    for (const number of passed) cells[data.clauses[number].id] = { status: "pass" };
  const table = document.getElementById("matrix");
  const form = document.getElementById("filters");
  const dialog = document.getElementById("details");
  const title = document.getElementById("details-title");
  const body = document.getElementById("details-body");
  const copied = document.getElementById("copied");
  const expand = document.getElementById("expand");
  const signs = data.signs;
  const gravest = ["crash", "timeout", "fail", "unexpected-pass", "deviation", "untested", "pass", "unsupported"];
  const columnOf = new Map(data.columns.map((column, number) => [column.name, number]));
  const clauseOf = new Map(data.clauses.map((clause) => [clause.id, clause]));
  const headings = [...table.tHead.rows[0].cells].slice(1);
  const groups = [...table.tBodies].map((part) => ({
    name: part.dataset.group,
    head: part.rows[0],
    toggle: part.rows[0].querySelector("button"),
    rows: [...part.rows].slice(1).map((row) => ({
      row, clause: clauseOf.get(row.dataset.clause), cells: [...row.cells].slice(1), kept: true,
    })),
    open: false,
  }));
  for (const { rows } of groups) {
    for (const each of rows) each.statuses = each.cells.map((cell) => cell.className);
  }

  const make = (tag, properties, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(properties || {})) {
      if (key in element) element[key] = value; else element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null && child !== ""));
    return element;
  };
  const link = (column, row) => `#${column < 0 ? "" : encodeURIComponent(data.columns[column].name)}/${encodeURIComponent(row)}`;
  const chip = (status) => make("span", { className: `chip ${status}`, "aria-hidden": "true" }, signs[status]);
  const counted = (counts) => gravest.filter((s) => counts[s]).map((s) => `${counts[s]} ${s}`).join(", ");
  const cellOf = (column, clause) => data.columns[column].cells[clause];

  // Links: every cell is one, so that it can be copied, bookmarked and opened in a new tab.
  for (const { rows, name, head } of groups) {
    for (const { row, clause, cells } of rows) {
      row.querySelector("th a").href = link(-1, clause.id);
      cells.forEach((cell, column) => {
        const anchor = cell.querySelector("a");
        if (anchor) anchor.href = link(column, clause.id);
      });
    }
    [...head.cells].slice(1).forEach((cell, column) => cell.append(make("a", { href: link(column, name) })));
  }

  // Filters
  const textOf = (clause) => {
    clause.text ??= [clause.id, clause.sentence, ...data.columns.flatMap(({ cells }) => {
      const cell = cells[clause.id] || {};
      return [cell.detail, cell.message, cell.reason];
    })].filter(Boolean).join("\n").toLowerCase();
    return clause.text;
  };
  const chosen = (name) => new Set([...form.elements[name]].filter((box) => box.checked).map((box) => box.value));
  const serves = (profile, wanted) => !wanted || profile === wanted || profile === "both";

  function filter() {
    const statuses = chosen("status"), levels = chosen("level");
    const everyStatus = statuses.size === form.elements.status.length;
    const wanted = form.elements.profile.value;
    const text = form.elements.text.value.trim().toLowerCase();
    const columns = data.columns.map((column) => !wanted || column.profile === wanted);
    headings.forEach((heading, column) => { heading.hidden = !columns[column]; });
    let shown = 0;
    for (const group of groups) {
      for (const each of group.rows) {
        each.kept = levels.has(each.clause.level) && serves(each.clause.profile, wanted)
          && (!text || textOf(each.clause).includes(text))
          && (everyStatus || each.statuses.some((status, column) => columns[column] && statuses.has(status)));
        shown += each.kept;
        each.cells.forEach((cell, column) => {
          cell.hidden = !columns[column];
          cell.classList.toggle("off", !everyStatus && !statuses.has(each.statuses[column]));
        });
      }
      summarise(group, columns);
    }
    if (text || !everyStatus) for (const group of groups) group.open = group.rows.some(({ kept }) => kept);
    lay();
    const number = columns.filter(Boolean).length;
    document.getElementById("shown").textContent =
      `${shown} of ${data.clauses.length} clauses, ${number} of ${columns.length} backends shown`;
  }

  function summarise(group, columns) {
    [...group.head.cells].slice(1).forEach((cell, column) => {
      cell.hidden = !columns[column];
      const counts = {};
      for (const { kept, statuses } of group.rows) {
        if (kept && signs[statuses[column]]) counts[statuses[column]] = (counts[statuses[column]] || 0) + 1;
      }
      const worst = gravest.find((status) => counts[status]) || "absent";
      const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
      let from = 0;
      const stops = gravest.filter((status) => counts[status]).map((status) => {
        const to = from + (100 * counts[status]) / total;
        const stop = `var(--${status}-bar) ${from}% ${to}%`;
        from = to;
        return stop;
      });
      const bar = make("span", { className: "bar-of" });
      bar.style.background = stops.length ? `linear-gradient(to right, ${stops.join(", ")})` : "none";
      cell.className = worst;
      const anchor = cell.firstElementChild;
      anchor.replaceChildren(worst === "absent" ? "·" : `${signs[worst]} ${counts[worst]}`, bar);
      anchor.setAttribute("aria-label", counted(counts) || "none");
      anchor.title = counted(counts);
    });
  }

  function lay() {
    for (const group of groups) {
      const kept = group.rows.filter((each) => each.kept);
      group.head.parentElement.hidden = !kept.length;
      group.toggle.setAttribute("aria-expanded", String(group.open));
      group.toggle.querySelector(".count").textContent = kept.length;
      for (const each of group.rows) each.row.hidden = !(group.open && each.kept);
    }
    expand.textContent = groups.every(({ open }) => open) ? "Collapse all" : "Expand all";
    settle();
  }

  for (const group of groups) {
    group.toggle.addEventListener("click", () => { group.open = !group.open; lay(); });
  }
  expand.addEventListener("click", () => {
    const open = !groups.every((group) => group.open);
    for (const group of groups) group.open = open;
    lay();
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("clear").addEventListener("click", () => {
    form.reset();
    for (const group of groups) group.open = false;
    filter();
  });

  // Keyboard: one tab stop in the table, arrows move among what can be chosen.
  const visible = (element) => element && !element.closest("[hidden]");
  const chooseable = (cell) => visible(cell) && cell.querySelector("a, button");
  let current = null;

  function settle(next) {
    if (next) current = next;
    if (!visible(current)) current = [...table.querySelectorAll("tbody a, tbody button")].find(visible);
    if (current && current.tabIndex === 0 && settle.last === current) return;
    if (settle.last) settle.last.tabIndex = -1;
    settle.last = current || null;
    if (current) current.tabIndex = 0;
  }
  for (const element of table.querySelectorAll("tbody a, tbody button")) element.tabIndex = -1;
  table.addEventListener("focusin", (event) => settle(event.target.closest("a, button")));

  function step(cell, down, right) {
    const rows = [...table.rows].filter((row) => row.parentElement !== table.tHead && visible(row));
    let row = rows.indexOf(cell.parentElement), column = cell.cellIndex;
    for (;;) {
      row += down; column += right;
      const next = rows[row]?.cells[column];
      if (!next) return null;
      if (chooseable(next)) return chooseable(next);
    }
  }
  function farthest(cell, down, right) {
    let found = cell.querySelector("a, button");
    for (let next = found; next; next = step(next.closest("th, td"), down, right)) found = next;
    return found;
  }
  const keys = {
    ArrowDown: (cell) => step(cell, 1, 0), ArrowUp: (cell) => step(cell, -1, 0),
    ArrowRight: (cell) => step(cell, 0, 1), ArrowLeft: (cell) => step(cell, 0, -1),
    Home: (cell, all) => farthest(all ? farthest(cell, -1, 0).closest("th, td") : cell, 0, -1),
    End: (cell, all) => farthest(all ? farthest(cell, 1, 0).closest("th, td") : cell, 0, 1),
  };
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("tbody th, tbody td");
    if (!cell || !keys[event.key] || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = keys[event.key](cell, event.ctrlKey);
    if (!next) return;
    next.focus({ preventScroll: true });
    reveal(next);
  });
  function reveal(element) {
    element.scrollIntoView({ block: "nearest", inline: "nearest" });
    const frame = table.parentElement, box = element.getBoundingClientRect();
    const corner = table.tHead.rows[0].cells[0].getBoundingClientRect();
    if (box.top < corner.bottom) frame.scrollTop -= corner.bottom - box.top;
    if (!element.closest("th") && box.left < corner.right) frame.scrollLeft -= corner.right - box.left;
  }

  // Details
  const facts = (rows, name = "") => make("dl", { className: `facts ${name}` }, ...rows
    .filter(([, value]) => value !== undefined && value !== null && value !== "")
    .flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]));

  function copyable(text, what, name = "") {
    const button = make("button", { type: "button", className: "copy" }, `Copy ${what}`);
    button.addEventListener("click", async () => {
      const done = await copy(text);
      button.textContent = done ? "Copied" : "Select the text and copy it";
      copied.textContent = button.textContent;
      setTimeout(() => { button.textContent = `Copy ${what}`; copied.textContent = ""; }, 2500);
    });
    const code = make("pre", { className: name, tabIndex: 0, role: "group", "aria-label": what }, text);
    return make("div", { className: "code" }, code, button);
  }
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = make("textarea", { value: text, className: "vh" });
      dialog.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }
  const scripts = (() => {
    let read = null;
    return () => (read ??= (async () => {
      const packed = document.getElementById("scripts").textContent.trim();
      const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      return new Response(stream).json();
    })());
  })();

  // Links: to the web, and to files of docs/ beside the page; all else stays text. The words are a
  // target's, so an address is one only where it holds nothing but what addresses are made of.
  const address = /https?:\/\/[\w-]+(?:\.[\w-]+)*(?::\d+)?(?:[/?#][\w\/.~%+=&?;,:#@!-]*[\w\/=#-])?|(?<![\w\/.:-])docs\/(?:[\w-]+\/)*[\w-]+\.(?:md|html)(?:#[\w.-]*\w)?(?![\w\/])/g;
  const linked = (text) => {
    const parts = [];
    let from = 0;
    for (const { 0: found, index } of text.matchAll(address)) {
      parts.push(text.slice(from, index), make("a", { href: found, rel: "noreferrer" }, found));
      from = index + found.length;
    }
    return [...parts, text.slice(from)];
  };
  const also = (clause) => (clause.policy ? `${clause.source} (PyTorch leaves this undocumented; the suite had to choose)` : clause.source);
  const aboutClause = (clause, more = []) => [
    make("p", { className: "sentence" }, clause.sentence || "The report does not say."),
    facts([["level", clause.level], ["profile", clause.profile], ["source", also(clause)], ...more]),
  ];
  const several = (number, one, many) => `${number} ${number === 1 ? one : many}`;

  function showCell(column, clause) {
    const about = data.columns[column], cell = cellOf(column, clause.id);
    title.textContent = `${about.name}: ${clause.id}`;
    if (!cell) {
      body.replaceChildren(...aboutClause(clause), make("p", {}, "This report says nothing of the clause: it belongs to another profile or device, or was not selected."));
      return;
    }
    const cases = cell.exercised === undefined ? "" : `${cell.exercised}${cell.failed ? `, ${cell.failed} of them broke it` : ""}`;
    const against = { true: "against the verdict", false: "not against the verdict" }[cell.against];
    const happened = cell.message || cell.detail;
    const broken = cell.failed || cell.message || ["fail", "crash", "timeout", "deviation"].includes(cell.status);
    const parts = [
      make("p", {}, chip(cell.status), ` ${cell.status}: ${data.meanings[cell.status]}`),
      ...aboutClause(clause, [["cases", cases], ["counts", against]]),
    ];
    if (happened) parts.push(make("h3", {}, broken ? "The smallest failing case" : "Why"), make("p", {}, happened));
    parts.push(facts([
      ["got", cell.got], ["exact", cell.exact], ["bound", cell.bound],
      ["error", cell.ulp === undefined ? "" : `${Number(cell.ulp.toPrecision(4))} ulp`],
      ["size", cell.indices || cell.rows ? `${several(cell.indices || 0, "index", "indices")}, ${several(cell.rows || 0, "row", "rows")}` : ""],
    ], "values"));
    if (cell.reason) {
      parts.push(make("h3", {}, "Declared as a deviation"), make("p", {}, ...linked(cell.reason)));
      if (cell.link) parts.push(make("p", {}, ...linked(cell.link)));
    }
    if (cell.call) parts.push(make("h3", {}, "The call"), copyable(cell.call, "call"));
    const place = make("div", {});
    if (cell.script !== undefined) {
      parts.push(make("h3", {}, "A script that shows it"), place);
      scripts().then((all) => place.replaceChildren(copyable(all[cell.script], "script")),
        () => place.replaceChildren(make("p", {}, "This browser can't unpack the script; run the command below with --repro-dir DIR.")));
    } else if (broken && !cell.call) {
      parts.push(make("p", { className: "quiet" }, "The report keeps no script; the command below with --repro-dir DIR writes one."));
    }
    parts.push(make("h3", {}, "Run it again"), copyable(`${about.replay} --select ${clause.id}`, "command", "command"));
    body.replaceChildren(...parts);
  }

  function showGroup(column, group) {
    const { name, cells } = data.columns[column];
    title.textContent = `${name}: ${group.name}`;
    const found = Map.groupBy
      ? Map.groupBy(group.rows.filter(({ clause }) => cells[clause.id]), ({ clause }) => cells[clause.id].status)
      : group.rows.reduce((map, each) => {
        const status = cells[each.clause.id]?.status;
        return status ? map.set(status, [...(map.get(status) || []), each]) : map;
      }, new Map());
    body.replaceChildren(...gravest.filter((status) => found.has(status)).flatMap((status) => [
      make("h3", {}, chip(status), ` ${found.get(status).length} ${status}`),
      make("ul", { className: "list" }, ...found.get(status).map(({ clause }) =>
        make("li", {}, make("a", { href: link(column, clause.id) }, clause.id)))),
    ]));
  }

  function showClause(clause) {
    title.textContent = clause.id;
    const rows = data.columns.map((column, number) => [number, column, column.cells[clause.id]]);
    body.replaceChildren(...aboutClause(clause), make("h3", {}, "Backends"),
      ...gravest.flatMap((status) => {
        const those = rows.filter(([, , cell]) => cell && cell.status === status);
        return those.length ? [make("p", {}, chip(status), ` ${those.length} ${status}: `, ...those.flatMap(
          ([number, column], place) => [place ? ", " : "", make("a", { href: link(number, clause.id) }, column.name)],
        ))] : [];
      }));
  }

  function open() {
    const hash = location.hash.slice(1), cut = hash.lastIndexOf("/");
    if (cut < 0) { if (dialog.open) dialog.close(); return; }
    let column, row;
    try {
      [column, row] = [decodeURIComponent(hash.slice(0, cut)), decodeURIComponent(hash.slice(cut + 1))];
    } catch { return; }
    const clause = clauseOf.get(row), group = groups.find(({ name }) => name === (clause ? clause.group : row));
    const number = columnOf.get(column);
    if (!group || (column && number === undefined) || (!column && !clause)) {
      document.getElementById("shown").textContent = `This page has no cell ${column}/${row}`;
      if (dialog.open) dialog.close();
      return;
    }
    if (!column) showClause(clause); else if (clause) showCell(number, clause); else showGroup(number, group);
    const permalink = location.href;
    body.append(make("h3", {}, "Link"), copyable(permalink, "link", "command"));
    if (clause && !group.open) { group.open = true; lay(); }
    const place = clause ? group.rows.find((each) => each.clause === clause).row : group.head;
    const target = place.cells[number === undefined ? 0 : number + 1].querySelector("a, button");
    if (visible(target)) { settle(target); reveal(target); }
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }
  document.getElementById("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    if (location.hash.includes("/")) history.replaceState(null, "", location.pathname + location.search);
    if (visible(current)) current.focus({ preventScroll: true });
  });
  // a second choice of the same cell changes no hash
  table.addEventListener("click", (event) => {
    const anchor = event.target.closest("a");
    if (anchor && anchor.hash === location.hash) open();
  });
  addEventListener("hashchange", open);

  form.hidden = false;
  filter();
  open();
})();

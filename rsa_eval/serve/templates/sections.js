"use strict";
// The sections of the report: those whose tags have changed are fetched; typed words filter rows.
const sections = (() => {
  const find = (selector) => document.querySelector(selector);
  const ask = async (address, headers = {}) => {
    const reply = await fetch(address, { headers, cache: "no-store", signal: AbortSignal.timeout(60000) });
    if (!reply.ok && reply.status !== 304) throw new Error(`${address}: ${reply.status}`);
    return reply;
  };
  const holderOf = (name) => {
    if (name === "contents") return find('[data-section="contents"]');
    const known = find(`#report > [data-section="${CSS.escape(name)}"]`);
    const holder = known ?? document.createElement("div");
    holder.dataset.section = name;
    if (name === "summary") holder.id = name;
    return holder;
  };
  const show = async (listed) => {
    const report = find("#report");
    const holders = new Map(listed.map(([name]) => [name, holderOf(name)]));
    await Promise.all(listed.map(async ([name, tag]) => {
      const holder = holders.get(name);
      if (holder.dataset.tag === tag) return;
      const html = await (await ask(`/section/${name}`)).text();
      fill(holder, name === "summary" ? `<h2>Summary</h2>${html}` : html);
      holder.dataset.tag = tag;
    }));
    const wanted = [...holders.values()].filter((holder) => holder.dataset.section !== "contents");
    for (const holder of [...report.children]) if (!wanted.includes(holder)) holder.remove();
    wanted.forEach((holder, number) => {
      if (report.children[number] !== holder) report.insertBefore(holder, report.children[number] ?? null);
    });
    if (!holders.has("contents")) {
      find('[data-section="contents"]').replaceChildren();
      delete find('[data-section="contents"]').dataset.tag;
    }
  };
  // Replace a part, keeping what the reader sorted, opened, scrolled to and focused.
  const fill = (holder, html) => {
    const keyOf = (part) => part.querySelector("summary")?.textContent;
    const opened = new Map([...holder.querySelectorAll("details")].map((part) => [keyOf(part), part.open]));
    const sorted = [...holder.querySelectorAll("table.sortable")].map((table) => {
      const heading = table.querySelector("th[aria-sort]");
      return heading && [heading.textContent, heading.getAttribute("aria-sort")];
    });
    const scrolled = [...holder.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
    const buttons = "button, summary, a, .scroll";
    const focused = [...holder.querySelectorAll(buttons)].indexOf(document.activeElement);
    holder.innerHTML = html;
    tables.makeSortable(holder);
    for (const part of holder.querySelectorAll("details")) part.open = opened.get(keyOf(part)) ?? part.open;
    holder.querySelectorAll("table.sortable").forEach((table, number) => {
      const [text, direction] = sorted[number] ?? [];
      const heading = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === text);
      if (!heading) return;
      heading.setAttribute("aria-sort", direction);
      tables.sort(table, heading);
    });
    holder.querySelectorAll(".scroll").forEach((part, number) => { part.scrollLeft = scrolled[number] ?? 0; });
    if (focused !== -1) holder.querySelectorAll(buttons)[focused]?.focus({ preventScroll: true });
  };
  // Fetch what a part shows once it is opened.
  document.addEventListener("toggle", async ({ target }) => {
    const address = target.dataset?.part;
    if (!address || !target.open || target.children.length > 1) return;
    const body = document.createElement("div");
    body.textContent = "Reading …";
    target.append(body);
    try {
      const reply = await ask(address);
      const text = await reply.text();
      if (reply.headers.get("Content-Type").startsWith("text/html")) {
        body.innerHTML = text;
        tables.makeSortable(body);
      } else {
        const plain = document.createElement("pre");
        plain.textContent = text;
        body.replaceWith(plain);
      }
    } catch (error) {
      body.remove();
      target.open = false;
    }
  }, true);

  // ---- Filter ----
  const filter = () => {
    const words = find("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (text) => words.every((word) => text.toLowerCase().includes(word));
    let [shown, all] = [0, 0];
    for (const holder of [find("#runs"), ...find("#report").children]) {
      const rows = holder.querySelectorAll("table.sortable > tbody > tr:not(.divider), details.record");
      if (rows.length === 0) continue;
      const title = holder.querySelector("h2")?.textContent ?? "";
      let count = 0;
      for (const row of rows) {
        if (row.parentElement.closest("details.record")) continue;
        row.hidden = !matches(`${title} ${row.textContent}`);
        count += !row.hidden;
        all += 1;
      }
      shown += count;
      if (holder.id !== "runs") holder.hidden = words.length > 0 && count === 0;
    }
    find("#matches").textContent = words.length ? `${shown} of ${all} rows` : "";
  };
  find("#filter").addEventListener("input", filter);

  return { ask, show, filter };
})();

"use strict";
// Ask for the state every other second while the page is visible; list the runs and draw their curves.
(() => {
  const SECONDS = 2;
  const MOST_DRAWN = 12;
  const DRAWN_UNASKED = 6;
  const STATES = { "in progress": "live", finished: "done", stopped: "stopped" };
  const { element, format } = charts;
  const { ask } = sections;
  const find = (selector) => document.querySelector(selector);

  let state = { runs: [], sections: [] };
  let stateTag = "";
  let chosen = null; // ids of the runs that the reader ticked; null follows those in progress
  let drawn = []; // ids, by place
  const curvesOf = new Map(); // id -> { tag, curves }
  const rowOf = new Map(); // id -> row of the table

  // ---- Polling ----
  let timer = 0;
  const poll = async () => {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      const reply = await ask("/state", stateTag ? { "If-None-Match": stateTag } : {});
      if (reply.status !== 304) {
        state = await reply.json();
        await show();
        stateTag = reply.headers.get("ETag") ?? "";
      }
      showAges();
      showStatus("");
    } catch (error) {
      stateTag = "";
      showStatus(`The server does not answer since ${new Date().toLocaleTimeString()}`);
    }
    timer = setTimeout(poll, SECONDS * 1000);
  };
  document.addEventListener("visibilitychange", poll);

  const showStatus = (problem) => {
    const status = find("#status");
    if (problem && status.classList.contains("gone")) return;
    status.classList.toggle("gone", Boolean(problem));
    const text = problem || "Up to date";
    if (status.textContent !== text) status.textContent = text;
  };
  const show = async () => {
    showRuns();
    await Promise.all([showCurves(), sections.show(state.sections)]);
    sections.filter();
  };

  // ---- Runs ----
  const duration = (seconds) => {
    if (seconds === null) return "";
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    if (seconds < 129600) return `${(seconds / 3600).toFixed(1)} h`;
    return `${(seconds / 86400).toFixed(1)} d`;
  };
  const isLive = (run) => run.state === "in progress";
  const byPlace = (a, b) =>
    isLive(b) - isLive(a) || (isLive(a) ? a.name.localeCompare(b.name) : b.changed - a.changed);
  const setCell = (cell, text, value) => {
    if (cell.textContent !== text) cell.textContent = text;
    if (value === null || value === undefined) delete cell.dataset.value;
    else cell.dataset.value = value;
  };
  const makeRow = (run) => {
    const row = document.createElement("tr");
    for (let column = 0; column < 8; column += 1) {
      row.append(element("td", "", column > 1 ? "number" : ""));
    }
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox" });
    box.setAttribute("aria-label", `Draw ${run.name}`);
    box.addEventListener("change", () => tick(run.id, box.checked));
    const name = element("span", "");
    // A long name breaks after its slashes.
    name.append(...run.name.split(/(?<=\/)/).flatMap((part) => [part, document.createElement("wbr")]));
    label.append(box, name);
    label.title = run.folder;
    row.cells[0].append(label);
    row.cells[1].append(element("span", "", "state"));
    row.cells[2].append(element("span", ""), document.createElement("progress"));
    return row;
  };
  const fillRow = (row, run, isOnly) => {
    const [first, status, progress, loss, accuracy, time, left] = row.cells;
    const name = first.querySelector("label > span");
    if (isOnly) name.querySelector("small")?.remove();
    else if (!name.querySelector("small")) name.append(element("small", run.folder));
    status.firstChild.className = `state ${STATES[run.state]}`;
    setCell(status.firstChild, run.state);
    const share = run.num_steps ? Math.min(1, run.step / run.num_steps) : null;
    const whole = run.num_epochs ?? run.num_steps;
    const part = run.num_epochs === null ? run.step : run.epoch;
    const text = share === null ? `step ${run.step}`
      : `${format(Math.floor((part ?? 0) * 10) / 10)} of ${whole} ${run.num_epochs === null ? "steps" : "epochs"}`;
    setCell(progress.firstChild, text);
    progress.dataset.value = share ?? 0;
    progress.lastChild.hidden = share === null;
    progress.lastChild.value = share ?? 0;
    progress.lastChild.setAttribute("aria-label", `Progress of ${run.name}`);
    setCell(loss, run.loss === null ? "" : run.loss.toFixed(3), run.loss);
    setCell(accuracy, run.accuracy === null ? "" : run.accuracy.toFixed(1), run.accuracy);
    setCell(time, duration(run.seconds), run.seconds);
    const rest = isLive(run) ? run.seconds_left : null;
    setCell(left, duration(rest), rest);
  };
  const showRuns = () => {
    const table = find("#runs table");
    const ids = new Set(state.runs.map((run) => run.id));
    for (const [id, row] of rowOf) {
      if (!ids.has(id)) {
        row.remove();
        rowOf.delete(id);
        curvesOf.delete(id);
      }
    }
    const sorted = [...state.runs].sort(byPlace);
    const names = new Map();
    for (const run of sorted) names.set(run.name, (names.get(run.name) ?? 0) + 1);
    for (const run of sorted) {
      if (!rowOf.has(run.id)) rowOf.set(run.id, makeRow(run));
      fillRow(rowOf.get(run.id), run, names.get(run.name) === 1);
    }
    const heading = table.querySelector("th[aria-sort]");
    const body = table.tBodies[0];
    const rows = sorted.map((run) => rowOf.get(run.id));
    if (heading) body.append(...rows.filter((row) => row.parentElement !== body));
    else if (rows.some((row, place) => body.rows[place] !== row)) keepFocus(() => body.append(...rows));
    if (heading) keepFocus(() => tables.sort(table, heading));
    table.parentElement.hidden = rows.length === 0;
    find("#curves").hidden = rows.length === 0;
    const counts = Object.keys(STATES).map((name) => [name, state.runs.filter((run) => run.state === name).length]);
    find("#counts").textContent = rows.length === 0 ? "None yet; a run appears here once it has started."
      : counts.filter(([, count]) => count).map(([name, count]) => `${count} ${name}`).join(" · ")
        + (state.num_unlisted ? ` · ${state.num_unlisted} more, not listed` : "");
  };
  const keepFocus = (change) => {
    const focused = document.activeElement;
    change();
    if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  };
  const showAges = () => {
    for (const run of state.runs) {
      const age = Math.max(0, Date.now() / 1000 - run.changed);
      const cell = rowOf.get(run.id)?.cells[7];
      if (cell) setCell(cell, `${duration(age)} ago`, -run.changed);
    }
  };

  // ---- Curves ----
  const choose = () => {
    if (chosen !== null) return state.runs.map((run) => run.id).filter((id) => chosen.has(id));
    const sorted = [...state.runs].sort(byPlace);
    const live = sorted.filter(isLive).slice(0, MOST_DRAWN);
    return (live.length ? live : sorted.slice(0, DRAWN_UNASKED)).map((run) => run.id);
  };
  const tick = (id, isTicked) => {
    chosen = new Set(choose());
    if (isTicked) chosen.add(id);
    else chosen.delete(id);
    redraw();
  };
  const redraw = () => showCurves().catch(() => { stateTag = ""; });
  // A run keeps its colour while others are added or removed.
  const place = (ids) => {
    drawn = drawn.map((id) => (ids.includes(id) ? id : null));
    for (const id of ids.filter((each) => !drawn.includes(each))) {
      const free = drawn.indexOf(null);
      if (free === -1) drawn.push(id);
      else drawn[free] = id;
    }
    while (drawn.length && drawn.at(-1) === null) drawn.pop();
  };
  const showCurves = async () => {
    const ids = choose();
    place(ids);
    const runs = new Map(state.runs.map((run) => [run.id, run]));
    for (const [id, row] of rowOf) {
      const box = row.querySelector("input");
      box.checked = ids.includes(id);
      box.disabled = !box.checked && ids.length >= MOST_DRAWN;
    }
    await Promise.all(ids.map(async (id) => {
      const { tag } = runs.get(id);
      if (curvesOf.get(id)?.tag === tag) return;
      const { curves } = await (await ask(`/curves/${id}`)).json();
      curvesOf.set(id, { tag, curves });
    }));
    const shown = drawn.map((id, number) => ({ run: runs.get(id), number })).filter(({ run }) => run);
    const hint = find("#hint");
    hint.textContent = ids.length >= MOST_DRAWN
      ? `At most ${MOST_DRAWN} runs are drawn; untick one to draw another.`
      : "Tick runs in the table to draw them.";
    hint.hidden = ids.length > 0 && ids.length < MOST_DRAWN;
    find("#draw-live").textContent = state.runs.some(isLive) ? "Draw those in progress" : "Draw the latest";
    showLegend(shown);
    showPlots(shown);
  };
  const showLegend = (shown) => {
    find("#legend").replaceChildren(...shown.map(({ run, number }) => {
      const item = document.createElement("li");
      item.append(charts.swatch(number), run.name);
      return item;
    }));
    const configs = find("#configs");
    const wanted = shown.filter(({ run }) => run.has_config).map(({ run }) => run);
    for (const part of [...configs.children]) {
      if (!wanted.some((run) => part.dataset.part === `/config/${run.id}`)) part.remove();
    }
    find("#settings").hidden = wanted.length === 0;
    for (const run of wanted) {
      if (configs.querySelector(`[data-part="/config/${run.id}"]`)) continue;
      const part = document.createElement("details");
      part.dataset.part = `/config/${run.id}`;
      part.append(element("summary", run.name));
      configs.append(part);
    }
  };
  const showPlots = (shown) => {
    const axis = find("#axis").value;
    const plots = new Map(); // key -> { title, rank, curves }
    for (const { run, number } of shown) {
      const perUnit = axis === "epoch" ? run.steps_per_epoch : 1;
      for (const { key, title, rank, steps, values } of curvesOf.get(run.id)?.curves ?? []) {
        if (!perUnit) continue;
        if (!plots.has(key)) plots.set(key, { title, rank, curves: [] });
        const xs = steps.map((step) => step / perUnit);
        plots.get(key).curves.push({ name: run.name, place: number, xs, ys: values });
      }
    }
    for (const isMain of [true, false]) {
      const holder = find(isMain ? "#main-plots" : "#more-plots");
      const wanted = [...plots].filter(([, plot]) => (plot.rank !== null) === isMain)
        .sort(([, a], [, b]) => a.rank - b.rank);
      const old = new Map([...holder.children].map((figure) => [figure.dataset.key, figure]));
      const figures = wanted.map(([key, plot]) => {
        const figure = old.get(key) ?? document.createElement("figure");
        figure.dataset.key = key;
        charts.draw(figure, { title: plot.title, axis, curves: plot.curves });
        return figure;
      });
      holder.replaceChildren(...figures);
    }
    const more = find("#more");
    const count = find("#more-plots").children.length;
    more.hidden = count === 0;
    more.firstElementChild.textContent = `More quantities (${count})`;
  };
  find("#axis").addEventListener("change", redraw);
  find("#draw-live").addEventListener("click", () => { chosen = null; redraw(); });
  find("#draw-listed").addEventListener("click", () => {
    const listed = [...find("#runs table").tBodies[0].rows].filter((row) => !row.hidden);
    const ids = new Map([...rowOf].map(([id, row]) => [row, id]));
    chosen = new Set(listed.slice(0, MOST_DRAWN).map((row) => ids.get(row)));
    redraw();
  });
  find("#draw-none").addEventListener("click", () => { chosen = new Set(); redraw(); });

  poll();
})();

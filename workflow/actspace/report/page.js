// What the page adds where scripts run: tables that sort, and beneath figures the values of every line behind them.
"use strict";
(() => {
  const MISSING = "–";

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function written(value) {
    return value == null ? MISSING : String(value).replace("-", "−");
  }

  // Sorting

  function sortKey(cell) {
    const text = (cell.dataset.sort ?? cell.textContent).trim();
    const number = Number(text.replace("−", "-").replace("∞", "Infinity").replaceAll(",", ""));
    return text === "" || Number.isNaN(number) ? text : number;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, "en", { numeric: true });
  }

  function sortBy(table, column, up) {
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: sortKey(row.cells[column]) }));
    const missing = ({ key }) => key === MISSING;
    rows.sort((a, b) => missing(a) - missing(b) || (up ? 1 : -1) * compare(a.key, b.key));
    table.tBodies[0].append(...rows.map(({ row }) => row));
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = element("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sortBy(table, column, up);
      });
      head.replaceChildren(button);
    });
  }

  // Values beneath a figure; `explore.py` says what a view holds

  function choosers(view, changed) {
    const box = element("div", { className: "choices" });
    const selects = view.choices.map(([name, values], place) => {
      const select = element("select", {}, ...values.map((value, i) => new Option(value, i)));
      select.selectedIndex = view.start[place];
      select.addEventListener("change", changed);
      if (values.length > 1) box.append(element("label", {}, `${name} `, select));
      return select;
    });
    return { box, chosen: () => selects.map((select) => select.selectedIndex) };
  }

  function label(view, chosen, own, place) {
    return own || view.choices[place][1][chosen[place]];
  }

  function seriesAt(view, chosen) {
    const found = view.series.filter(([at]) => at.every((value, place) => value === chosen[place]));
    return found.map(([, line, x, value, low, high]) => {
      const [name, colour, dash] = view.lines[line];
      return { name, colour, dash, x: view.xs[x], value, low, high };
    });
  }

  // A number near one is as good as one far below: both colours get stronger with the distance from the middle.
  function shade(value) {
    const strength = Math.min(1, Math.abs(value - 0.5) * 2) * 0.45;
    return `rgb(${value > 0.5 ? "0 114 178" : "213 94 0"} / ${strength})`;
  }

  function matrix(view, lines) {
    const heads = view.names.map((name) => element("th", { scope: "col" }, name));
    const rows = lines.map((line) => {
      const cells = view.names.map((_, x) => {
        const value = line.value[line.x.indexOf(x)];
        const cell = element("td", {}, written(value));
        if (value != null) cell.style.background = shade(value);
        return cell;
      });
      return element("tr", {}, element("th", { scope: "row" }, line.name), ...cells);
    });
    const corner = element("th", { scope: "col" }, `${view.y} ↓, ${view.x} →`);
    return element("table", {}, element("thead", {}, element("tr", {}, corner, ...heads)), element("tbody", {}, ...rows));
  }

  function plotOptions(view, lines, width, labels, moved) {
    const series = lines.flatMap(({ name, colour, dash, x }) => [
      { label: name, stroke: colour, dash, width: 2, spanGaps: true, points: { show: x.length < 40, size: 5 } },
      ...["low", "high"].map((end) => ({ label: end, width: 0, spanGaps: true, points: { show: false } })),
    ]);
    const bands = lines.map(({ colour }, i) => ({ series: [3 * i + 3, 3 * i + 2], fill: `${colour}24` }));
    const axis = { font: "12px system-ui, sans-serif", labelFont: "13px system-ui, sans-serif", grid: { stroke: "#e3e3e3", width: 1 } };
    return {
      width,
      height: Math.min(340, Math.max(220, width * 0.55)),
      scales: { x: { time: false, distr: view.log ? 3 : 1 } },
      axes: [{ ...axis, label: labels.x, size: 36, space: 72 }, { ...axis, label: labels.y, size: 48 }],
      series: [{}, ...series],
      bands,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: (_, i) => (i % 3 === 1 ? 9 : 0) } },
      hooks: { setCursor: [(plot) => plot.cursor.idx != null && moved(plot.cursor.idx)] },
    };
  }

  function joined(lines) {
    const filled = (line, end) => (line[end].length ? line[end] : line.value.map(() => null));
    return uPlot.join(lines.map((line) => [line.x, line.value, filled(line, "low"), filled(line, "high")]));
  }

  function valueRows(view, lines, data, place) {
    const there = lines.map((line, i) => [line, ...[1, 2, 3].map((column) => data[3 * i + column][place])]);
    there.sort(([, a], [, b]) => (a == null) - (b == null));
    return there.map(([line, value, low, high]) => {
      const swatch = element("span", { className: "swatch" });
      swatch.style.background = line.colour;
      const cells = [element("td", {}, written(value))];
      if (view.interval) cells.push(element("td", {}, low == null ? MISSING : `${written(low)} to ${written(high)}`));
      return element("tr", {}, element("th", { scope: "row" }, swatch, line.name), ...cells);
    });
  }

  function valueTable(view, yLabel) {
    const heads = ["line", yLabel, ...(view.interval ? [view.interval] : [])];
    const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
    const body = element("tbody");
    return { body, table: element("table", {}, element("thead", {}, head), body) };
  }

  function curves(view, lines, chosen, title, place) {
    const data = joined(lines);
    const labels = { x: label(view, chosen, view.x, 1), y: label(view, chosen, view.y, 0) };
    const slider = element("input", { type: "range", min: 0, max: data[0].length - 1 });
    const output = element("output");
    const { body, table } = valueTable(view, labels.y);
    const chart = element("div", { className: "chart" });
    const position = element("label", { className: "position" }, `${labels.x} `, output, slider);
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", `${labels.y} against ${labels.x}; the values are in the table below`);

    function moved(index) {
      slider.value = index;
      output.textContent = written(data[0][index]);
      slider.setAttribute("aria-valuetext", `${labels.x} ${output.textContent}`);
      body.replaceChildren(...valueRows(view, lines, data, index));
    }

    function draw(width) {
      const plot = new uPlot(plotOptions(view, lines, width, labels, moved), data, chart);
      new ResizeObserver(() => plot.setSize({ width: chart.clientWidth, height: plot.height })).observe(chart);
      const go = () => plot.setCursor({ left: plot.valToPos(data[0][slider.value], "x"), top: 0 });
      slider.addEventListener("input", go);
      moved(Math.round(place * slider.max));
    }
    return { parts: [chart, position, scrolling(table, `Values of ${title}`)], draw, place: () => slider.value / slider.max || 0 };
  }

  function scrolling(table, name) {
    const box = element("div", { className: "scroll", tabIndex: 0 }, table);
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", name);
    return box;
  }

  function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  }

  async function fillExplorer(details) {
    const view = await unpacked(details.dataset.view);
    const title = details.closest("figure").querySelector("h3").textContent;
    const shown = element("div");
    let place = () => 0.5;

    function update() {
      const chosen = selected.chosen();
      const lines = seriesAt(view, chosen);
      if (!lines.length) return shown.replaceChildren(element("p", {}, "Not measured for this choice."));
      if (view.names.length) return shown.replaceChildren(scrolling(matrix(view, lines), `Values of ${title}`));
      const drawn = curves(view, lines, chosen, title, place());
      shown.replaceChildren(...drawn.parts);
      drawn.draw(drawn.parts[0].clientWidth);
      place = drawn.place;
    }

    const selected = choosers(view, update);
    details.append(selected.box, shown);
    update();
  }

  document.documentElement.classList.add("scripted");
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("details.explore").forEach((details) => {
    details.addEventListener("toggle", () => fillExplorer(details), { once: true });
  });
})();

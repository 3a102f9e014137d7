// Tables that are updated in place: rows keep their elements, so that focus and selection stay.

import { h, mark, say } from './dom.js';

/**
 * A table. A column has `id`, `title`, `text(row)` or `node(row)` with `update(node, row)`, and
 * maybe `sort(row)`, `numeric`, `less` (1: left out on a phone, 2: left out on a tablet too, 3: on a
 * small screen too), `tone(row)` and `hint(row)`.
 */
export function table({ caption, columns, key, empty, sorted, rowClass, limit = ROWS_MAX }) {
  let order = sorted ?? null;
  let shown = [];
  const rows = new Map();
  const heads = columns.map((column) => head(column, () => sortBy(column)));
  const body = h('tbody');
  const note = h('p', { class: 'empty' });
  const element = h(
    'div',
    { class: 'tablebox', role: 'region', 'aria-label': caption, tabindex: 0 },
    h(
      'table',
      null,
      h('caption', { class: 'hidden' }, caption),
      h('thead', null, h('tr', null, heads)),
      body,
    ),
    note,
  );

  function sortBy(column) {
    const again = order?.id === column.id;
    const first = column.numeric ? 'descending' : 'ascending';
    const other = first === 'ascending' ? 'descending' : 'ascending';
    order = { id: column.id, direction: again && order.direction === first ? other : first };
    draw();
  }

  function ordered() {
    const column = columns.find((its) => its.id === order?.id);
    if (!column?.sort) return shown;
    const sign = order.direction === 'ascending' ? 1 : -1;
    const compare = (one, other) => {
      const [a, b] = [column.sort(one), column.sort(other)];
      if (typeof a === 'string' || typeof b === 'string') {
        return sign * String(a ?? '').localeCompare(String(b ?? ''), 'en', { numeric: true });
      }
      return sign * ((a ?? -Infinity) - (b ?? -Infinity) || 0);
    };
    return [...shown].sort(compare);
  }

  function draw() {
    heads.forEach((cell, place) => {
      const its = columns[place].id === order?.id;
      if (columns[place].sort) mark(cell, 'aria-sort', its ? order.direction : 'none');
    });
    const all = ordered();
    const visible = all.slice(0, limit);
    const keys = new Set();
    let before = null;
    for (const item of visible) {
      const its = key(item);
      keys.add(its);
      let row = rows.get(its);
      if (!row) {
        row = newRow(item, columns);
        rows.set(its, row);
      }
      row.update(item, rowClass?.(item) ?? '');
      const place = before ? before.nextSibling : body.firstChild;
      if (place !== row.element) body.insertBefore(row.element, place);
      before = row.element;
    }
    for (const [its, row] of rows) {
      if (keys.has(its)) continue;
      row.element.remove();
      rows.delete(its);
    }
    const more = all.length - visible.length;
    const left = more > 0 ? `${more.toLocaleString('en')} more: narrow the filter.` : '';
    say(note, all.length === 0 ? (typeof empty === 'function' ? empty() : empty) : left);
    note.hidden = note.textContent === '';
  }

  return {
    element,
    update(items) {
      shown = items;
      draw();
    },
  };
}

function head(column, onSort) {
  const label = column.sort
    ? h('button', { type: 'button', class: 'sort', onclick: onSort }, column.title)
    : column.title;
  const hidden = column.bare ? 'bare' : '';
  return h('th', { scope: 'col', class: `${classOf(column)} ${hidden}`, title: column.about }, label);
}

const classOf = (column) =>
  [column.numeric ? 'number' : '', column.less ? `less${column.less}` : '', column.class ?? '']
    .filter(Boolean)
    .join(' ');

function newRow(item, columns) {
  const cells = columns.map((column) => {
    const content = column.node?.(item) ?? null;
    const name = column.header ? 'th' : 'td';
    const cell = h(name, { class: classOf(column), scope: column.header ? 'row' : null }, content);
    return { column, cell, content };
  });
  const element = h('tr', null, cells.map(({ cell }) => cell));
  const update = (row, name) => {
    if (element.className !== name) element.className = name;
    for (const { column, cell, content } of cells) {
      if (column.text) say(cell, column.text(row));
      else column.update?.(content, row);
      if (column.tone) mark(cell, 'data-tone', column.tone(row) || null);
      if (column.hint) mark(cell, 'title', column.hint(row) || null);
    }
  };
  return { element, update };
}

/** A state in words, with a mark of its tone: colour alone says nothing. */
export function badge() {
  return h('span', { class: 'badge' });
}

export function setBadge(element, { tone, text, about }) {
  mark(element, 'data-tone', tone);
  mark(element, 'title', about);
  say(element, text);
}

const ROWS_MAX = 1_000;
